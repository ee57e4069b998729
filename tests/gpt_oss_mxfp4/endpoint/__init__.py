"""What makes MAX's endpoint speak harmony, part by part."""
