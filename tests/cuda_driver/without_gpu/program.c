// PTX text to instructions: names become slots, one for each register, special register, parameter and constant.
#define _GNU_SOURCE
#include "ptx.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPERANDS = 300, MOST_DECLARED = 4096, MOST_SCOPES = 32 };

struct name {
    char *text;
    int slot;
};

struct label {
    int slot, place;
};

struct parser {
    struct program *program;
    struct name *names; // a hash table
    int name_room, name_count;
    struct label *labels;
    int label_count;
    int constant_room, instruction_room;
    int scopes[MOST_SCOPES], depth, last_scope;
    struct { char *text; int scope; } declared[MOST_DECLARED]; // by scopes of inline assembly that are open
    int declared_count;
};

static const char *const TYPE_NAMES[TYPES] = {
    "u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64", "bf16", "bf16x2", "f16", "f16x2", "pred"};

enum type parse_type(const char *name)
{
    if (name[0] == 'b' && isdigit(name[1]))
        for (int i = U8; i <= U64; i += 2)
            if (!strcmp(name + 1, TYPE_NAMES[i] + 1))
                return i;
    for (int i = 0; i < TYPES; i++)
        if (!strcmp(name, TYPE_NAMES[i]))
            return i;
    return TYPES;
}

static void *grow(void *array, int count, int *room, size_t size)
{
    if (count < *room)
        return array;
    *room = *room ? 2 * *room : 1024;
    return realloc(array, *room * size);
}

// Names.

static struct name *find_name(struct parser *parser, const char *text)
{
    if (2 * parser->name_count >= parser->name_room) {
        struct name *old = parser->names;
        int room = parser->name_room;
        parser->name_room = room ? 2 * room : 4096;
        parser->names = calloc(parser->name_room, sizeof *parser->names);
        parser->name_count = 0;
        for (int i = 0; i < room; i++)
            if (old[i].text) {
                *find_name(parser, old[i].text) = old[i];
                parser->name_count++;
            }
        free(old);
    }
    unsigned hash = 5381;
    for (const char *c = text; *c; c++)
        hash = hash * 33 ^ (unsigned char)*c;
    int i = hash & (parser->name_room - 1);
    while (parser->names[i].text && strcmp(parser->names[i].text, text))
        i = (i + 1) & (parser->name_room - 1);
    return &parser->names[i];
}

static void set_name(struct parser *parser, const char *text, int slot)
{
    struct name *name = find_name(parser, text);
    if (!name->text) {
        name->text = strdup(text);
        parser->name_count++;
    }
    name->slot = slot;
}

static int new_constant(struct parser *parser, uint64_t bits)
{
    struct program *program = parser->program;
    for (int c = 0; c < program->constant_count; c++)
        if (program->constants[c][0] == bits)
            return ~c;
    program->constants =
        grow(program->constants, program->constant_count, &parser->constant_room, sizeof *program->constants);
    for (int i = 0; i < LANES; i++)
        program->constants[program->constant_count][i] = bits;
    return ~program->constant_count++;
}

static int special_of(const char *name)
{
    static const struct { const char *name; int special, axes; } known[] = {
        {"%tid", TID, 1}, {"%ntid", NTID, 1}, {"%ctaid", CTAID, 1}, {"%nctaid", NCTAID, 1}, {"%laneid", LANEID, 0},
        {"%warpid", WARPID, 0}, {"%cluster_ctarank", CLUSTER_CTARANK, 0}, {"%cluster_nctarank", CLUSTER_NCTARANK, 0},
        {"%cluster_ctaid", CLUSTER_CTAID, 1}, {"%cluster_nctaid", CLUSTER_NCTAID, 1}, {"%clusterid", CLUSTERID, 1},
        {"%nclusterid", NCLUSTERID, 1}};
    const char *dot = strchrnul(name, '.');
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == (size_t)(dot - name) && !strncmp(known[i].name, name, dot - name))
            return known[i].special + (known[i].axes ? dot[1] - 'x' : 0);
    return NONE;
}

// A register, or a constant of a name that stands for one: made when it is first seen.
static int slot_of(struct parser *parser, const char *text)
{
    char renamed[512];
    for (int i = parser->declared_count; i--;)
        if (!strcmp(parser->declared[i].text, text)) {
            snprintf(renamed, sizeof renamed, "%s@%d", text, parser->declared[i].scope);
            text = renamed;
            break;
        }
    struct name *name = find_name(parser, text);
    if (name->text)
        return name->slot;
    struct program *program = parser->program;
    int special = text[0] == '%' ? special_of(text) : strstr(text, "__local_depot") ? LOCAL : NONE;
    int slot = program->slot_count++;
    if (special != NONE)
        program->special[special] = slot;
    set_name(parser, text, slot);
    return slot;
}

static int is_name(const char *text) { return isalpha(*text) || *text == '%' || *text == '_' || *text == '$'; }

// Whether a name with % is a register that is declared, or a special one that is known here.
static int is_register(struct parser *parser, const char *text)
{
    static const char *const others[] = {"%clock", "%envreg", "%pm", "%reserved"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (!strncmp(text, others[i], strlen(others[i])))
            return 0;
    for (int i = 0; i < parser->declared_count; i++)
        if (!strcmp(parser->declared[i].text, text))
            return 1;
    size_t letters = 1 + strspn(text + 1, "abcdefghijklmnopqrstuvwxyz"), digits = strspn(text + letters, "0123456789");
    return special_of(text) != NONE || !strcmp(text, "%SP") || !strcmp(text, "%SPL") || (digits && !text[letters + digits]);
}

// What cannot be read makes the instruction one that is not known.
static struct operand parse_operand(struct parser *parser, char *text, int *is_known)
{
    if (is_name(text)) {
        int64_t plus = 0;
        char *sign = strchr(text, '+'), *end = "";
        if (sign) {
            plus = strtoll(sign + 1, &end, 0);
            *sign = 0;
        }
        *is_known &= !*end && (*text != '%' || is_register(parser, text));
        return (struct operand){slot_of(parser, text), plus};
    }
    char *end;
    uint64_t bits;
    if (text[0] == '0' && (tolower(text[1]) == 'f' || tolower(text[1]) == 'd'))
        bits = strtoull(text + 2, &end, 16);
    else if (text[0] == '-')
        bits = strtoll(text, &end, 0);
    else
        bits = strtoull(text, &end, 0);
    *is_known &= !*end || !strcmp(end, "U");
    return (struct operand){new_constant(parser, bits), 0};
}

// Instructions.

static void parse_types(struct instruction *in)
{
    char opcode[256], *rest = opcode;
    snprintf(opcode, sizeof opcode, "%s", in->opcode);
    in->type = in->source_type = TYPES;
    in->vector = 1;
    for (char *part; (part = strsep(&rest, "."));) {
        enum type type = parse_type(part);
        if (type != TYPES) {
            in->type = in->source_type;
            in->source_type = type;
        } else if ((part[0] == 'v' || part[0] == 'x') && isdigit(part[1]) && !part[2])
            in->vector = part[1] - '0';
    }
    if (in->type == TYPES)
        in->type = in->source_type;
}

// cvt.TO.FROM and setp.CMP.T have their types in this order; the last is source_type.
static void parse_instruction(struct parser *parser, char *statement)
{
    struct program *program = parser->program;
    program->instructions = grow(
        program->instructions, program->instruction_count, &parser->instruction_room, sizeof *program->instructions);
    struct instruction *in = &program->instructions[program->instruction_count++];
    *in = (struct instruction){.text = strdup(statement), .pair = strchr(statement, '|') != NULL, .guard = NONE, .target = NONE};
    if (*statement == '@') {
        in->negated = statement[1] == '!';
        char *name = statement + 1 + in->negated;
        statement = strpbrk(name, " \t");
        *statement++ = 0;
        in->guard = slot_of(parser, name);
    }
    statement += strspn(statement, " \t");
    char *rest = statement + strcspn(statement, " \t");
    if (*rest)
        *rest++ = 0;
    in->opcode = strdup(statement);
    parse_types(in);
    struct operand operands[MOST_OPERANDS];
    int depth = 0, begins = 1, is_known = !strstr(in->opcode, "b128"), is_branch = !strncmp(in->opcode, "bra", 3);
    for (char *c = rest; *c;) {
        if (*c == '{' || *c == '[')
            depth++;
        else if (*c == '}' || *c == ']')
            depth--;
        if (!depth)
            begins = 1;
        if (strchr(" \t{}[],|()", *c)) {
            c++;
            continue;
        }
        char *end = c + strcspn(c, " \t{}[],|()"), kept = *end;
        if (begins && in->groups < 15)
            in->first[in->groups++] = in->count;
        is_known &= in->count < MOST_OPERANDS;
        begins = !depth;
        *end = 0;
        if (is_branch)
            in->target = slot_of(parser, c); // resolved behind the last label
        else if (in->count < MOST_OPERANDS)
            operands[in->count++] = parse_operand(parser, c, &is_known);
        *end = kept;
        c = end;
    }
    in->first[in->groups] = in->count;
    in->operands = memcpy(malloc(sizeof *operands * (in->count + 1)), operands, sizeof *operands * in->count);
    find_run_function(in, is_known);
}

static void declare(struct parser *parser, char *names)
{
    for (char *name; (name = strsep(&names, ", \t"));)
        if (*name && parser->declared_count < MOST_DECLARED) {
            parser->declared[parser->declared_count].text = strdup(name);
            parser->declared[parser->declared_count++].scope = parser->scopes[parser->depth];
        }
}

static void set_label(struct parser *parser, char *text)
{
    int slot = slot_of(parser, text);
    parser->labels = realloc(parser->labels, (parser->label_count + 1) * sizeof *parser->labels);
    parser->labels[parser->label_count++] = (struct label){slot, parser->program->instruction_count};
}

static int is_label(const char *text, const char *end)
{
    const char *c = text;
    while (c < end && (isalnum(*c) || *c == '_' || *c == '$'))
        c++;
    return c == end && end > text;
}

// Finds what a scope of inline assembly declares: its registers, and its labels, which may be used before they are set.
static void open_scope(struct parser *parser, const char *text)
{
    if (++parser->depth >= MOST_SCOPES)
        abort();
    parser->scopes[parser->depth] = ++parser->last_scope;
    int depth = 1;
    const char *statement = text;
    for (const char *c = text; *c && depth; c++) {
        if (*c == '{')
            depth++;
        else if (*c == '}')
            depth--;
        if (*c == ';' || *c == '{' || *c == '}' || *c == ':') {
            statement += strspn(statement, " \t\n");
            if (depth == 1 || *c == '}') {
                char *copy = strndup(statement, c - statement);
                char type[32], names[1024];
                if (*c == ':' && is_label(statement, c))
                    declare(parser, copy);
                else if (*c == ';' && sscanf(copy, ".reg %31s %1023[^\n]", type, names) == 2)
                    declare(parser, names);
                free(copy);
            }
            statement = c + 1;
        }
    }
}

static void close_scope(struct parser *parser)
{
    int scope = parser->scopes[parser->depth--];
    while (parser->declared_count && parser->declared[parser->declared_count - 1].scope == scope)
        free(parser->declared[--parser->declared_count].text);
}

static int is_declaration(const char *statement)
{
    static const char *const known[] = {".reg ", ".param ", ".shared ", ".pragma ", ".branchtargets"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(statement, known[i], strlen(known[i])))
            return 1;
    return 0;
}

static void parse_body(struct parser *parser, char *text)
{
    char *statement = text;
    int in_vector = 0;
    for (char *c = text; *c; c++) {
        statement += statement <= c ? strspn(statement, " \t\n") : 0;
        int begins = statement >= c;
        if (*c == '{' && begins) {
            open_scope(parser, c + 1);
            statement = c + 1;
        } else if (*c == '{')
            in_vector++;
        else if (*c == '}' && in_vector)
            in_vector--;
        else if (*c == '}') {
            if (!parser->depth)
                return;
            close_scope(parser);
            statement = c + 1;
        } else if (*c == ':' && is_label(statement, c)) {
            *c = 0;
            set_label(parser, statement);
            statement = c + 1;
        } else if (*c == ';') {
            *c = 0;
            for (char *space = statement; *space; space++)
                if (*space == '\n')
                    *space = ' ';
            if (!strncmp(statement, ".local", 6)) {
                char *bytes = strchr(statement, '[');
                parser->program->local_bytes += ((bytes ? atoi(bytes + 1) : 8) + 63) / 64 * 64; // there is one
            } else if (*statement && !is_declaration(statement))
                parse_instruction(parser, statement);
            statement = c + 1;
        }
    }
}

// Memory that a module declares.

static void parse_globals(struct parser *parser, char *text)
{
    for (char *at = text; (at = strstr(at, ".global ")); at++) {
        if (at != text && at[-1] != '\n' && at[-1] != ' ') // of an opcode
            continue;
        int alignment, bits, room;
        char name[512];
        if (sscanf(at, ".global .align %d .b%d %511[^[][%d]", &alignment, &bits, name, &room) != 4)
            continue;
        uint8_t *memory = (uint8_t *)allocate(room * bits / 8);
        char *values = at + strcspn(at, "{;");
        for (int i = 0; *values == '{' || *values == ','; i++) {
            uint64_t value = strtoull(values + 1, &values, 0);
            memcpy(memory + i * bits / 8, &value, bits / 8);
            values += strspn(values, " \t\n");
        }
        set_name(parser, name, new_constant(parser, (uintptr_t)memory));
    }
}

static void parse_shared(struct parser *parser, char *text)
{
    struct program *program = parser->program;
    for (int sized = 1; sized >= 0; sized--)
        for (char *at = text; (at = strstr(at, ".shared .align ")); at++) {
            int alignment, bits, count = 0;
            char name[512];
            int found = sscanf(at, ".shared .align %d .b%d %511[^[][%d]", &alignment, &bits, name, &count);
            if (found < 3 || (found == 4) != sized)
                continue;
            alignment = sized ? alignment : 1024;
            int begin = (program->shared_bytes + alignment - 1) / alignment * alignment;
            set_name(parser, name, new_constant(parser, begin));
            if (sized)
                program->shared_bytes = begin + count * bits / 8;
        }
}

static void parse_parameters(struct parser *parser, char *text)
{
    struct program *program = parser->program;
    for (char *declaration; (declaration = strsep(&text, ",)"));) {
        char *at = strstr(declaration, ".param");
        if (!at)
            continue;
        int bits = 0, count = 1;
        char *name = NULL, *rest = at + 6;
        for (char *word; (word = strsep(&rest, " \t\n"));)
            if (!strcmp(word, ".align"))
                strsep(&rest, " \t\n");
            else if (word[0] == '.' && isdigit(word[2]))
                bits = atoi(word + 2);
            else if (*word && *word != '.')
                name = word;
        char *brackets = strchr(name, '[');
        if (brackets) {
            count = atoi(brackets + 1);
            *brackets = 0;
        }
        if (!bits || program->parameter_count == sizeof program->parameters / sizeof *program->parameters)
            abort();
        struct parameter *parameter = &program->parameters[program->parameter_count++];
        parameter->size = count * bits / 8;
        parameter->at = (program->parameter_bytes + 63) / 64 * 64;
        program->parameter_bytes = parameter->at + parameter->size;
        parameter->slot = slot_of(parser, name);
    }
}

static void strip_comments(char *text)
{
    for (char *at = text; (at = strstr(at, "//"));)
        while (*at && *at != '\n')
            *at++ = ' ';
}

struct program *parse_program(const char *original)
{
    char *text = strdup(original);
    strip_comments(text);
    char *entry = strstr(text, ".entry");
    if (!entry) {
        free(text);
        return NULL;
    }
    struct parser *parser = calloc(1, sizeof *parser);
    struct program *program = parser->program = calloc(1, sizeof *program);
    for (int i = 0; i < SPECIALS; i++)
        program->special[i] = NONE;
    entry += strlen(".entry");
    entry += strspn(entry, " \t");
    char *open = strchr(entry, '('), *close = strchr(open, ')'), *body = strchr(close, '{');
    snprintf(program->name, sizeof program->name, "%.*s", (int)strcspn(entry, " (\n"), entry);
    parse_globals(parser, text);
    parse_shared(parser, text);
    char *directive;
    if ((directive = memmem(close, body - close, ".reqnctapercluster", 18)))
        sscanf(directive + 18, "%d , %d , %d", &program->cluster[0], &program->cluster[1], &program->cluster[2]);
    *close = 0;
    parse_parameters(parser, open + 1);
    parse_body(parser, body + 1);
    for (int i = 0; i < program->instruction_count; i++) {
        struct instruction *in = &program->instructions[i];
        for (int l = 0; in->target != NONE && l < parser->label_count; l++)
            if (in->target == parser->labels[l].slot) {
                in->target = parser->labels[l].place;
                break;
            }
    }
    for (int i = 0; i < parser->name_room; i++)
        free(parser->names[i].text);
    free(parser->names);
    free(parser->labels);
    free(parser);
    free(text);
    return program;
}
