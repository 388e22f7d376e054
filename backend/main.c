/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weir-backend: options, configuration, master.
 *
 * Every key of the file is a long option, too; options go before the file.
 */
#include "config.h"

#include "backend/process.h"
#include "common/base/mem.h"
#include "common/io/io_ev.h"

#include <limits.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define OPTIONS_MAX 64u

struct main_options {
    struct process_options process;
    struct conf_option items[OPTIONS_MAX];
    bool is_test;
};

static void print_key(const char *key, const char *value, const char *what)
{
    if (strcmp(key, "version") == 0) /* of the file alone */
        return;
    fprintf(stderr, "  --%-15s %s%s%s%s\n", key, what, value[0] != '\0' ? " (" : "", value,
            value[0] != '\0' ? ")" : "");
}

static void usage(void)
{
    fputs("Usage: weir-backend [-hVtd] [-c conf file] [-o log file] [-v level] [-p pid file] [--KEY VALUE ...]\n"
          "\n"
          "  -h, --help         this help\n"
          "  -V                 versions, and what the kernel offers\n"
          "  -t                 test the configuration and exit\n"
          "  -d                 run as a daemon\n"
          "  -c FILE            configuration file, YAML: version: 1, and the keys below\n"
          "  -o, -v, -p         log_file, log_level, pid_file\n"
          "\n"
          "Keys of the file and options (and their defaults), options go first:\n",
          stderr);
    node_conf_print_keys(print_key);
    fputs("\n"
          "weir-backend --dir data --memory 4gb --workers 2    then: redis-cli -p 7000 and -p 7001\n",
          stderr);
}

static int version(void)
{
    long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct io_ev_options options = {.files = IO_FILES_BEST};
    struct io *io = NULL;
    struct utsname kernel;

    printf("This is weir-backend-%s\n", PACKAGE_VERSION);
    if (io_ev_create(&options, &io) == 0) {
        printf("libraries: libev %s; files: %s\n", io_ev_library_version(), io_ev_files_name(io));
        io_ev_destroy(&io);
    }
    if (uname(&kernel) == 0)
        printf("kernel: Linux %s, Landlock %s%ld, seccomp %s\n", kernel.release, landlock > 0 ? "ABI " : "no ",
               landlock > 0 ? landlock : 0, prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 ? "yes" : "no");
    return 0;
}

static bool add_option(struct main_options *options, const char *key, const char *value)
{
    struct process_options *process = &options->process;

    if (process->options_count == OPTIONS_MAX) {
        fprintf(stderr, "weir-backend: more than %u options\n", OPTIONS_MAX);
        return false;
    }
    options->items[process->options_count++] = (struct conf_option){.key = key, .value = value};
    return true;
}

/* "--key value" or "--key=value" at argv[*i]. */
static bool parse_long(struct main_options *options, int argc, char **argv, int *i)
{
    const char *key = argv[*i] + 2, *equals = strchr(key, '=');

    if (equals != NULL)
        return add_option(options, must_strndup(key, (size_t)(equals - key)), equals + 1);
    if (*i + 1 == argc) {
        fprintf(stderr, "weir-backend: option --%s has no value; weir-backend -h lists them\n", key);
        return false;
    }
    (*i)++;
    return add_option(options, key, argv[*i]);
}

/* -1: go on; else the exit code. */
static int parse_short(struct main_options *options, int argc, char **argv, int *i)
{
    const char letter = argv[*i][1];
    const char *value = argv[*i][2] != '\0' ? argv[*i] + 2 : NULL;

    switch (letter) {
    case 'h': usage(); return 0;
    case 'V': return version();
    case 't': options->is_test = true; return -1;
    case 'd': options->process.daemonize = true; return -1;
    case 'c':
    case 'o':
    case 'v':
    case 'p': break;
    default: fprintf(stderr, "weir-backend: -%c is not an option; weir-backend -h lists them\n", letter); return 1;
    }
    if (value == NULL && *i + 1 == argc) {
        fprintf(stderr, "weir-backend: option -%c has no value\n", letter);
        return 1;
    }
    if (value == NULL)
        value = argv[++*i];
    if (letter == 'c')
        options->process.conf_path = value;
    else if (!add_option(options, letter == 'o' ? "log_file" : letter == 'v' ? "log_level" : "pid_file", value))
        return 1;
    return -1;
}

static int parse_options(int argc, char **argv, struct main_options *options)
{
    for (int i = 1; i < argc; i++) {
        int code = -1;

        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0) {
            usage();
            return 0;
        }
        if (strcmp(argv[i], "--version") == 0 && i + 1 == argc)
            return version();
        if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2] != '\0') {
            if (!parse_long(options, argc, argv, &i))
                return 1;
        } else if (argv[i][0] == '-' && argv[i][1] != '\0' && argv[i][1] != '-') {
            code = parse_short(options, argc, argv, &i);
        } else {
            fprintf(stderr, "weir-backend: \"%s\" is not an option; weir-backend -h lists them\n", argv[i]);
            return 1;
        }
        if (code >= 0)
            return code;
    }
    return -1;
}

static int test(const struct main_options *options, const struct node_conf *conf)
{
    const char *path = options->process.conf_path;
    char error[MASTER_ERROR_SIZE];

    if (process_check(&options->process, error) != 0) {
        fprintf(stderr, "weir-backend: %s\n", error);
        return 1;
    }
    fprintf(stderr, "weir-backend: configuration %s%s%s is ok\n", path != NULL ? "file '" : "of the command line",
            path != NULL ? path : "", path != NULL ? "'" : "");
    printf("%u shard(s) from %s on, dir %s, fsync %s\n", conf->workers != 0 ? conf->workers : master_cpu_count(),
           conf->listen.text, conf->dir, node_conf_fsync_names[conf->fsync]);
    return 0;
}

static int run(struct main_options *options, struct node_conf **conf, int argc, char **argv)
{
    struct master_program program;
    struct log *log = NULL;
    int err = log_create((*conf)->log_file, (*conf)->log_level, "weir-backend", &log);

    if (err != 0) {
        fprintf(stderr, "weir-backend: cannot open the log file %s: %s\n", (*conf)->log_file, err_text(err));
        node_conf_destroy(conf);
        return 1;
    }
    if ((*conf)->pid_file != NULL)
        options->process.pid_path = must_strdup((*conf)->pid_file);
    node_conf_destroy(conf);
    options->process.log = log;
    process_program(&options->process, argc, argv, &program);
    err = master_run(&program);
    log_destroy(&log);
    return err;
}

int main(int argc, char **argv)
{
    static struct main_options options;
    struct node_conf *conf = NULL;
    struct conf_error error;
    char path[PATH_MAX], start_dir[PATH_MAX];
    int code;

    master_title_setup(argc, argv);
    options.process.options = options.items;
    code = parse_options(argc, argv, &options);
    if (code >= 0)
        return code;
    if (node_conf_read(options.process.conf_path, options.items, options.process.options_count, &conf, &error) != 0) {
        fprintf(stderr, "weir-backend: %s\n", error.text);
        return 1;
    }
    for (uint32_t i = 0; i < conf->warnings_count; i++)
        fprintf(stderr, "weir-backend: warning: %s\n", conf->warnings[i].text);
    if (options.is_test) {
        code = test(&options, conf);
        node_conf_destroy(&conf);
        return code;
    }
    if (options.process.conf_path != NULL && realpath(options.process.conf_path, path) != NULL)
        options.process.conf_path = path;
    if (getcwd(start_dir, sizeof(start_dir)) == NULL)
        start_dir[0] = '\0';
    options.process.start_dir = start_dir;
    return run(&options, &conf, argc, argv);
}
