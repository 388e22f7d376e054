/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From bytes to a tree of nodes, with everything refused that a configuration does not need:
 * aliases (a few lines of them are gigabytes), anchors, tags, directives, several documents, deep
 * nesting, other encodings than UTF-8, control characters.
 *
 * libyaml's events, not its documents: events carry both marks and do not resolve aliases.
 */
#include "config.h"

#include "common/conf/reader.h"

#include <yaml.h>

#define DEPTH_MAX 6

struct tree {
    struct conf_reader *reader;
    struct bytes yaml;
    yaml_parser_t parser;
    struct conf_node *root;
    struct frame {
        struct conf_node *node;  /* mapping or list that is open */
        struct conf_node **tail; /* where its next child goes */
        struct conf_node *key;   /* mapping: the key that waits for its value */
    } stack[DEPTH_MAX];
    uint32_t depth;
    uint32_t document_count;
    bool is_done;
};

static struct conf_position position(yaml_mark_t mark)
{
    return (struct conf_position){.line = (uint32_t)mark.line + 1,
                                  .column = (uint32_t)mark.column + 1};
}

/* Lines end as YAML says; columns count characters, as libyaml's do. */
static struct conf_position position_of_offset(struct bytes yaml, size_t off)
{
    struct conf_position at = {1, 1};

    for (size_t i = 0; i < MIN(off, yaml.len); i++) {
        unsigned char c = (unsigned char)yaml.data[i];

        if (c == '\n' || (c == '\r' && (i + 1 == yaml.len || yaml.data[i + 1] != '\n')))
            at.line++, at.column = 1;
        else if ((c & 0xc0) != 0x80 && c != '\r')
            at.column++;
    }
    return at;
}

/* Whether this line (from 1) is indented with a tab: the commonest reason for a scanner error. */
static bool line_starts_with_tab(struct bytes yaml, uint32_t line)
{
    const char *p = yaml.data, *end = p + yaml.len;

    while (line > 1 && p < end) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL)
            return false;
        p++;
        line--;
    }
    while (p < end && *p == ' ')
        p++;
    return p < end && *p == '\t';
}

static int fail_of_parser(struct tree *tree)
{
    const yaml_parser_t *parser = &tree->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "out of memory";
    struct conf_position at = position(parser->problem_mark);
    const char *hint = "the file is no valid YAML";

    if (parser->error == YAML_READER_ERROR) {
        at = position_of_offset(tree->yaml, parser->problem_offset);
        return conf_fail(tree->reader, at,
                         "conf: failed (err %d) to get the next yaml document: %s; write the file "
                         "in UTF-8, without control characters",
                         (int)parser->error, problem);
    }
    if (line_starts_with_tab(tree->yaml, at.line) || line_starts_with_tab(tree->yaml, at.line - 1))
        hint = "indent with blanks, not with tabs";
    else if (parser->context != NULL)
        hint = parser->context;
    return conf_fail(tree->reader, at,
                     "conf: failed (err %d) to get the next yaml document: %s; %s",
                     (int)parser->error, problem, hint);
}

static struct conf_node *node_create(struct tree *tree, enum conf_node_kind kind, yaml_mark_t mark)
{
    struct conf_node *node = conf_alloc(&tree->reader->scratch, sizeof(*node));

    node->kind = kind;
    node->at = position(mark);
    return node;
}

/* Hangs a finished scalar or an opened collection where it belongs. */
static int node_add(struct tree *tree, struct conf_node *node)
{
    struct frame *frame;

    if (tree->depth == 0) {
        tree->root = node;
        return 0;
    }
    frame = &tree->stack[tree->depth - 1];
    if (frame->node->kind == CONF_NODE_MAPPING && frame->key != NULL) {
        frame->key->value = node;
        frame->key = NULL;
        return 0;
    }
    if (frame->node->kind == CONF_NODE_MAPPING) {
        if (node->kind != CONF_NODE_SCALAR || node->text.len == 0)
            return conf_fail(tree->reader, node->at,
                             "conf: '%s' has invalid empty \"key:\" at depth %u; a key is a plain "
                             "word, then a colon",
                             tree->reader->path, tree->depth);
        frame->key = node;
    }
    *frame->tail = node;
    frame->tail = &node->next;
    frame->node->count++;
    return 0;
}

/* Control characters, and what some program would take for an end of line or not show at all: C1
 * controls (0x80-0x9f), U+2028, U+2029, U+FEFF. The text is UTF-8; libyaml has checked that. */
static bool is_unwanted(struct bytes rest)
{
    unsigned char c = (unsigned char)rest.data[0];

    return c < ' ' || c == 0x7f ||
           (c == 0xc2 && rest.len >= 2 && (unsigned char)rest.data[1] < 0xa0) ||
           (rest.len >= 3 && (memcmp(rest.data, "\xe2\x80\xa8", 3) == 0 ||
                              memcmp(rest.data, "\xe2\x80\xa9", 3) == 0 ||
                              memcmp(rest.data, "\xef\xbb\xbf", 3) == 0));
}

static int on_scalar(struct tree *tree, const yaml_event_t *event)
{
    struct conf_node *node = node_create(tree, CONF_NODE_SCALAR, event->start_mark);
    struct bytes text = bytes_of(event->data.scalar.value, event->data.scalar.length);

    for (struct bytes rest = text; rest.len > 0; rest = bytes_skip(rest, 1)) {
        if (is_unwanted(rest))
            return conf_fail(tree->reader, node->at,
                             "conf: a value has a control character (0x%02x) in it; take it out",
                             (unsigned char)rest.data[0]);
    }
    node->text = bytes_of(conf_copy(&tree->reader->scratch, text), text.len);
    return node_add(tree, node);
}

static int on_open(struct tree *tree, enum conf_node_kind kind, const yaml_event_t *event)
{
    struct conf_node *node = node_create(tree, kind, event->start_mark);
    int err;

    if (tree->depth == DEPTH_MAX)
        return conf_fail(tree->reader, node->at,
                         "conf: '%s' has a depth greater than %d; nothing in a configuration is "
                         "nested that deep",
                         tree->reader->path, DEPTH_MAX);
    err = node_add(tree, node);
    if (err != 0)
        return err;
    tree->stack[tree->depth++] = (struct frame){.node = node, .tail = &node->first};
    return 0;
}

static int refuse(struct tree *tree, const yaml_event_t *event, const char *what,
                  const char *instead)
{
    return conf_fail(tree->reader, position(event->start_mark), "conf: %s is disallowed; %s", what,
                     instead);
}

static int on_document(struct tree *tree, const yaml_event_t *event)
{
    if (event->data.document_start.version_directive != NULL)
        return refuse(tree, event, "version directive token", "leave the %YAML line out");
    if (event->data.document_start.tag_directives.start !=
        event->data.document_start.tag_directives.end)
        return refuse(tree, event, "tag directive token", "leave the %TAG line out");
    if (++tree->document_count > 1)
        return conf_fail(tree->reader, position(event->start_mark),
                         "conf: '%s' must contain only 1 document; found %u documents; take this "
                         "\"---\" out",
                         tree->reader->path, tree->document_count);
    return 0;
}

static int on_event(struct tree *tree, const yaml_event_t *event)
{
    const char *const no_tag = "write the value without its \"!\"";
    const char *const no_anchor = "write the value out where it is needed";

    switch (event->type) {
    case YAML_SCALAR_EVENT:
        if (event->data.scalar.anchor != NULL)
            return refuse(tree, event, "anchor token", no_anchor);
        if (event->data.scalar.tag != NULL)
            return refuse(tree, event, "tag token", no_tag);
        return on_scalar(tree, event);
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.anchor != NULL)
            return refuse(tree, event, "anchor token", no_anchor);
        if (event->data.mapping_start.tag != NULL)
            return refuse(tree, event, "tag token", no_tag);
        return on_open(tree, CONF_NODE_MAPPING, event);
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.anchor != NULL)
            return refuse(tree, event, "anchor token", no_anchor);
        if (event->data.sequence_start.tag != NULL)
            return refuse(tree, event, "tag token", no_tag);
        return on_open(tree, CONF_NODE_LIST, event);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        ASSERT(tree->depth > 0);
        tree->depth--;
        return 0;
    case YAML_ALIAS_EVENT:
        return refuse(tree, event, "alias token", no_anchor);
    case YAML_DOCUMENT_START_EVENT:
        return on_document(tree, event);
    case YAML_STREAM_END_EVENT:
        tree->is_done = true;
        return 0;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return 0;
    }
    return 0;
}

/* What libyaml would take for another encoding, or report without its place. */
static int check_bytes(struct conf_reader *reader, struct bytes yaml)
{
    static const struct conf_position start = {1, 1};
    const char *nul;

    if (yaml.len > CONF_FILE_SIZE_MAX)
        return conf_fail(reader, (struct conf_position){0, 0},
                         "conf: the file has more than %u bytes; split it",
                         CONF_FILE_SIZE_MAX);
    if ((yaml.len >= 3 && memcmp(yaml.data, "\xef\xbb\xbf", 3) == 0) ||
        (yaml.len >= 2 &&
         (memcmp(yaml.data, "\xff\xfe", 2) == 0 || memcmp(yaml.data, "\xfe\xff", 2) == 0)))
        return conf_fail(
            reader, start,
            "conf: the file starts with a byte order mark; save it as UTF-8 without one");
    nul = yaml.len > 0 ? memchr(yaml.data, '\0', yaml.len) : NULL;
    if (nul != NULL)
        return conf_fail(reader, position_of_offset(yaml, (size_t)(nul - yaml.data)),
                         "conf: the file has a NUL byte in it; it must be text");
    return 0;
}

static int check_root(struct tree *tree, struct conf_node **root)
{
    struct conf_reader *reader = tree->reader;

    if (tree->document_count == 0)
        return conf_fail(
            reader, (struct conf_position){1, 1},
            "conf: '%s' must contain only 1 document; found 0 documents; write %s", reader->path,
            reader->wants_what);
    if (tree->root->kind != CONF_NODE_MAPPING)
        return conf_fail(reader, tree->root->at,
                         "conf: '%s' has invalid empty \"key:\" at depth 0; start with %s",
                         reader->path, reader->starts_with);
    *root = tree->root;
    return 0;
}

int conf_yaml_read(struct conf_reader *reader, struct bytes yaml, struct conf_node **root)
{
    struct tree tree = {.reader = reader, .yaml = yaml};
    int err = check_bytes(reader, yaml);

    if (err != 0)
        return err;
    if (!yaml_parser_initialize(&tree.parser))
        return -ENOMEM;
    yaml_parser_set_encoding(&tree.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&tree.parser, (const unsigned char *)yaml.data, yaml.len);
    while (err == 0 && !tree.is_done) {
        yaml_event_t event;

        if (!yaml_parser_parse(&tree.parser, &event)) {
            err = fail_of_parser(&tree);
            break;
        }
        err = on_event(&tree, &event);
        yaml_event_delete(&event);
    }
    if (err == 0)
        err = check_root(&tree, root);
    yaml_parser_delete(&tree.parser);
    return err;
}
