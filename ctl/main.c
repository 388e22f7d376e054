/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weirctl: options, then one command.
 */
#include "config.h"

#include "ctl/ctl.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static const struct option long_options[] = {
    {"control", required_argument, NULL, 'C'},
    {"conf-file", required_argument, NULL, 'c'},
    {"stats-port", required_argument, NULL, 's'},
    {"interval", required_argument, NULL, 'i'},
    {"count", required_argument, NULL, 'n'},
    {"until", required_argument, NULL, 'u'},
    {"copy", no_argument, NULL, 'k'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

#define PROXY "Ccs" /* which one is asked */

static const struct command {
    const char *name, *args, *text;
    int args_min, args_max;
    const char *options; /* those that it takes, by their letters in long_options */
} commands[] = {
    {"status", "", "master, workers, pools, what was set since the last reload", 0, 0, PROXY},
    {"top", "", "requests, errors and times by pool, server and command, again and again", 0, 0, PROXY "in"},
    {"slowlog", "[COUNT]", "the latest slow requests, and where their time went", 0, 1, PROXY},
    {"hotkeys", "[COUNT]", "the keys that are asked for most", 0, 1, PROXY},
    {"bigkeys", "[COUNT]", "the largest values seen", 0, 1, PROXY},
    {"clients", "", "who is connected", 0, 0, PROXY},
    {"stats", "", "everything, as JSON", 0, 0, PROXY},
    {"where", "[POOL] KEY", "which server a key is on, and why; with -c from the file alone", 1, INT_MAX, PROXY},
    {"config", "", "the configuration in force", 0, 0, PROXY},
    {"set", "[KEY VALUE]", "change a value until the next reload; alone: what can be changed", 0, 2, PROXY},
    {"log-level", "N", "0 (emerg) to 11, or + or -", 1, 1, PROXY},
    {"reload", "", "put the changed file in force", 0, 0, PROXY},
    {"reopen", "", "open the log file again", 0, 0, PROXY},
    {"upgrade", "[BINARY]", "put a new binary in place of the running one", 0, 1, PROXY},
    {"quit", "", "finish what is in flight, then end the proxy", 0, 0, PROXY},
    {"stop", "", "end the proxy now", 0, 0, PROXY},
    {"verify", "DIR", "check a storage node's directory, or a backup, from end to end", 1, 1, ""},
    {"backup", "NODE|DIR DEST", "a backup of a node that runs (HOST:PORT), or of a stopped one's directory", 2, 2, "k"},
    {"restore", "BACKUP DIR", "a node's directory out of a backup, with --until as it was at a time", 2, 2, "ku"},
    {"salvage", "DIR OUT", "a new directory out of what can be read of a damaged one", 2, 2, ""},
};

static void usage(FILE *to)
{
    fputs("Usage: weirctl [OPTION]... COMMAND [ARGUMENT]...\n\n", to);
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
        fprintf(to, "  %-9s %-13s %s\n", commands[i].name, commands[i].args, commands[i].text);
    fputs("\n"
          "Which proxy:\n"
          "  --control=PATH         its control socket (the key `control:` of `weir:`)\n"
          "  -c, --conf-file=FILE   the one with this configuration\n"
          "  -s, --stats-port=PORT  the one with this stats port\n"
          "  (none of them)         the only one that runs\n"
          "\n"
          "top:\n"
          "  -i, --interval=S       seconds between two screens (1)\n"
          "  -n, --count=N          so many screens (without a terminal: 1)\n"
          "\n"
          "backup, restore:\n"
          "      --copy             copies, no hard links: for another disk, or to be apart from the source\n"
          "      --until=TIME       restore: as it was at TIME (UTC), \"2026-11-28 15:04:05.678Z\" or @SECONDS; or lsn:N\n"
          "\n"
          "  -h, --help   -V, --version\n"
          "\n"
          "Exit status: 0 done, 1 refused, 2 wrong usage, 3 nobody to talk to.\n",
          to);
}

#define GIVEN_SIZE (ARRAY_COUNT(long_options) + 1) /* with the one that there is not */

/* `given`: their letters, each once. */
static bool parse_options(int argc, char **argv, struct ctl_options *out, char given[GIVEN_SIZE], int *exit_code)
{
    size_t given_count = 0;
    int option;
    char *end;

    *exit_code = CTL_USAGE;
    while ((option = getopt_long(argc, argv, "c:s:i:n:hV", long_options, NULL)) != -1) {
        if (strchr(given, option) == NULL)
            given[given_count++] = (char)option;
        switch (option) {
        case 'C':
            out->control = optarg;
            break;
        case 'c':
            out->conf = optarg;
            break;
        case 's':
            out->stats_port = (int)strtol(optarg, &end, 10);
            if (*end != '\0' || out->stats_port < 1 || out->stats_port > 65535) {
                fprintf(stderr, "weirctl: -s takes a port, not \"%s\"\n", optarg);
                return false;
            }
            break;
        case 'i':
            out->interval_s = strtod(optarg, &end);
            if (*end != '\0' || !(out->interval_s >= 0.1 && out->interval_s <= 3600)) {
                fprintf(stderr, "weirctl: -i takes 0.1 to 3600 seconds, not \"%s\"\n", optarg);
                return false;
            }
            break;
        case 'n':
            out->count = (int)strtol(optarg, &end, 10);
            if (*end != '\0' || out->count < 1) {
                fprintf(stderr, "weirctl: -n takes a number from 1, not \"%s\"\n", optarg);
                return false;
            }
            break;
        case 'u':
            out->until = optarg;
            break;
        case 'k':
            out->must_copy = true;
            break;
        case 'h':
            usage(stdout);
            *exit_code = CTL_OK;
            return false;
        case 'V':
            puts("weirctl " PACKAGE_VERSION);
            *exit_code = CTL_OK;
            return false;
        default:
            fputs("weirctl --help says more\n", stderr);
            return false;
        }
    }
    return true;
}

/* One that is not heeded would be believed to be. */
static bool options_fit(const struct command *command, const char *given)
{
    const char *letter = given + strspn(given, command->options);
    const struct option *option = long_options;

    if (*letter == '\0')
        return true;
    while (option->val != *letter)
        option++;
    fprintf(stderr, "weirctl: %s takes no --%s\n", command->name, option->name);
    return false;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* The verb and its arguments as one line; false: a newline in it would be another line. */
static bool compose_line(int count, char **words, struct buffer *line)
{
    char path[PATH_MAX];

    for (int i = 0; i < count; i++) {
        const char *word = words[i];

        /* The master has another current directory. */
        if (i == 1 && strcmp(words[0], "upgrade") == 0 && realpath(word, path) != NULL)
            word = path;
        buffer_append_string(line, i > 0 ? " " : "");
        buffer_append_string(line, word);
        if (strpbrk(word, "\r\n") != NULL) {
            fputs("weirctl: there is a line break in the arguments; look such a key up with -c\n", stderr);
            return false;
        }
    }
    buffer_append(line, "", 1);
    return true;
}

static int ask(const struct ctl_options *options, int count, char **words)
{
    struct buffer line = {0}, answer = {0};
    char path[512];
    int code = ctl_find(options, path, sizeof(path));

    if (code != CTL_OK)
        return code;
    if (!compose_line(count, words, &line)) {
        buffer_deinit(&line);
        return CTL_USAGE;
    }
    code = ctl_ask(path, line.data, &answer);
    if (code == CTL_OK)
        fwrite(answer.data, 1, answer.len, stdout);
    else if (code == CTL_FAILED)
        fprintf(stderr, "weirctl: %.*s%s", (int)answer.len, answer.data == NULL ? "" : answer.data,
                answer.len == 0 ? "the answer is broken\n" : "");
    buffer_deinit(&line);
    buffer_deinit(&answer);
    return code;
}

int main(int argc, char **argv)
{
    struct ctl_options options = {.stats_port = -1, .interval_s = 1};
    const struct command *command;
    int exit_code, words_count;
    char **words, given[GIVEN_SIZE] = "";

    if (!parse_options(argc, argv, &options, given, &exit_code))
        return exit_code;
    words = argv + optind;
    words_count = argc - optind;
    if (words_count == 0) {
        usage(stderr);
        return CTL_USAGE;
    }
    if (strcmp(words[0], "help") == 0) {
        usage(stdout);
        return CTL_OK;
    }
    command = find(words[0]);
    if (command == NULL) {
        fprintf(stderr, "weirctl: there is no command \"%s\"; weirctl --help lists them\n", words[0]);
        return CTL_USAGE;
    }
    if (words_count - 1 < command->args_min || words_count - 1 > command->args_max) {
        fprintf(stderr, "weirctl: it is weirctl %s %s\n", command->name, command->args);
        return CTL_USAGE;
    }
    if (!options_fit(command, given))
        return CTL_USAGE;
    if (strcmp(command->name, "top") == 0)
        return ctl_top(&options);
    if (strcmp(command->name, "verify") == 0)
        return ctl_verify(words[1]);
    if (strcmp(command->name, "backup") == 0)
        return ctl_backup(words[1], words[2], options.must_copy);
    if (strcmp(command->name, "restore") == 0)
        return ctl_restore(words[1], words[2], options.until, options.must_copy);
    if (strcmp(command->name, "salvage") == 0)
        return ctl_salvage(words[1], words[2]);
    if (strcmp(command->name, "where") == 0 && options.conf != NULL)
        return ctl_where_file(options.conf, words_count - 1, words + 1);
    return ask(&options, words_count, words);
}
