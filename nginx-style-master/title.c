/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel shows the bytes between argv[0] and the end of the environment as a process's command
 * line. So argv and environ are copied away, and that room is written over.
 */
#include "nginx-style-master/process.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct {
    char *room; /* borrows: the stack's top, as the kernel laid it out */
    size_t size;
    char **argv; /* own: the copies */
    char **environment;
} title;

char **title_argv(void)
{
    return title.argv;
}

/* Pointers and strings in one block: setenv() and unsetenv() then lose nothing that was allocated. */
static char **copy_strings(char *const *strings, size_t count)
{
    size_t size = (count + 1) * sizeof(char *);
    char **copy, *at;

    for (size_t i = 0; i < count; i++)
        size += strlen(strings[i]) + 1;
    copy = must_alloc(size);
    at = (char *)(copy + count + 1);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(strings[i]) + 1;

        memcpy(at, strings[i], len);
        copy[i] = at;
        at += len;
    }
    copy[count] = NULL;
    return copy;
}

void title_keep_argv(int argc, char **argv)
{
    if (title.argv == NULL)
        title.argv = copy_strings(argv, (size_t)argc);
}

void title_setup(int argc, char **argv)
{
    char *end;
    size_t environ_count = 0;

    if (title.room != NULL || argc < 1)
        return;
    title_keep_argv(argc, argv);
    end = argv[0] + strlen(argv[0]) + 1;
    for (int i = 1; i < argc && argv[i] == end; i++)
        end += strlen(argv[i]) + 1;
    for (; environ[environ_count] != NULL; environ_count++)
        if (environ[environ_count] == end)
            end += strlen(end) + 1;
    title.room = argv[0];
    title.size = (size_t)(end - argv[0]);
    environ = title.environment = copy_strings(environ, environ_count);
    for (int i = 0; i < argc; i++)
        argv[i] = title.argv[i];
}

void title_set(const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    prctl(PR_SET_NAME, text);
    if (title.room == NULL || title.size < 2)
        return;
    memset(title.room, 0, title.size);
    snprintf(title.room, title.size - 1, "%s", text);
}
