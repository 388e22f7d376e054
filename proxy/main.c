/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weir-proxy: options, configuration, master.
 *
 * The command line is twemproxy's. What it says goes before the `weir:` section of the file.
 */
#include "config.h"

#include "common/base/log.h"
#include "common/io/io_ev.h"
#include "common/base/mem.h"
#include "nginx-style-master/master.h"
#include "proxy/check.h"
#include "proxy/conf.h"
#include "proxy/counters.h"
#include "proxy/process.h"

#include <getopt.h>
#include <limits.h>
#include <linux/landlock.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <yaml.h>

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"test-conf", no_argument, NULL, 't'},
    {"daemonize", no_argument, NULL, 'd'},
    {"describe-stats", no_argument, NULL, 'D'},
    {"verbose", required_argument, NULL, 'v'},
    {"output", required_argument, NULL, 'o'},
    {"conf-file", required_argument, NULL, 'c'},
    {"stats-port", required_argument, NULL, 's'},
    {"stats-interval", required_argument, NULL, 'i'},
    {"stats-addr", required_argument, NULL, 'a'},
    {"pid-file", required_argument, NULL, 'p'},
    {"mbuf-size", required_argument, NULL, 'm'},
    {NULL, 0, NULL, 0},
};

static void usage(FILE *to)
{
    fputs("Usage: weir-proxy [-?hVdDt] [-v verbosity level] [-o output file]\n"
          "                  [-c conf file] [-s stats port] [-a stats addr]\n"
          "                  [-i stats interval] [-p pid file] [-m mbuf size]\n"
          "\n"
          "Options:\n"
          "  -h, --help             : this help\n"
          "  -V, --version          : show version and exit\n"
          "  -t, --test-conf        : test configuration for errors, show its ring, exit\n"
          "  -d, --daemonize        : run as a daemon\n"
          "  -D, --describe-stats   : print stats description and exit\n"
          "  -v, --verbose=N        : set logging level (default: 5, min: 0, max: 11)\n"
          "  -o, --output=S         : set logging file (default: stderr)\n"
          "  -c, --conf-file=S      : set configuration file (default: conf/nutcracker.yml, else\n"
          "                           conf/weir.yml)\n"
          "  -s, --stats-port=N     : set stats monitoring port (default: 22222)\n"
          "  -a, --stats-addr=S     : set stats monitoring ip (default: 127.0.0.1)\n"
          "  -i, --stats-interval=N : accepted for twemproxy's sake: stats are always fresh\n"
          "  -p, --pid-file=S       : set pid file (default: off)\n"
          "  -m, --mbuf-size=N      : accepted for twemproxy's sake: buffers size themselves\n",
          to);
}

static int describe_stats(void)
{
    puts("pool stats:");
    for (int i = 0; i < POOL_COUNTER_COUNT; i++)
        printf("  %-24s\"%s\"\n", pool_counter_infos[i].name, pool_counter_infos[i].text);
    puts("\nserver stats:");
    for (int i = 0; i < SERVER_COUNTER_COUNT; i++)
        printf("  %-24s\"%s\"\n", server_counter_infos[i].name, server_counter_infos[i].text);
    return 0;
}

/* What it was built with, and which of the kernel's newer features are there: all have a fallback. */
static int version(void)
{
    long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    int yaml_major, yaml_minor, yaml_patch;
    struct utsname kernel;

    yaml_get_version(&yaml_major, &yaml_minor, &yaml_patch);
    printf("This is weir-proxy-%s\n", PACKAGE_VERSION);
    printf("libraries: libev %s, libyaml %d.%d.%d, %s\n", io_ev_library_version(),
           yaml_major, yaml_minor, yaml_patch, OpenSSL_version(OPENSSL_VERSION));
    if (uname(&kernel) == 0)
        printf("kernel: Linux %s, Landlock %s%ld, seccomp %s\n", kernel.release, landlock > 0 ? "ABI " : "no ",
               landlock > 0 ? landlock : 0,
               prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 ? "yes" : "no");
    return 0;
}

/* -1: wrong; said so. */
static long number(const char *text, char option, long min, long max)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < min || value > max) {
        fprintf(stderr, "weir-proxy: option -%c takes a number from %ld to %ld, not \"%s\"\n", option,
                min, max, text);
        return -1;
    }
    return value;
}

struct main_options {
    struct process_options process;
    bool is_test, is_done;
    int exit_code;
};

static bool option_number(char option, const char *text, struct main_options *out)
{
    long value;

    switch (option) {
    case 'v':
        value = number(text, option, 0, 11);
        out->process.log_level = (int)value;
        break;
    case 's':
        value = number(text, option, 1, 65535);
        out->process.stats_port = (int)value;
        break;
    case 'i':
        value = number(text, option, 1, INT_MAX);
        out->process.stats_interval_ms = value;
        break;
    default:
        value = number(text, option, 512, 16777216);
        break;
    }
    return value >= 0;
}

static bool parse_options(int argc, char **argv, struct main_options *out)
{
    int option;

    while ((option = getopt_long(argc, argv, "hVtdDv:o:c:s:i:a:p:m:", long_options, NULL)) != -1) {
        switch (option) {
        case 'h':
            usage(stderr);
            out->is_done = true;
            return true;
        case 'V':
            out->is_done = true;
            out->exit_code = version();
            return true;
        case 'D':
            out->is_done = true;
            out->exit_code = describe_stats();
            return true;
        case 't':
            out->is_test = true;
            break;
        case 'd':
            out->process.daemonize = true;
            break;
        case 'o':
            out->process.log_path = optarg;
            break;
        case 'c':
            out->process.conf_path = optarg;
            break;
        case 'a':
            out->process.stats_host = optarg;
            break;
        case 'p':
            out->process.pid_path = optarg;
            break;
        case 'v':
        case 's':
        case 'i':
        case 'm':
            if (!option_number((char)option, optarg, out))
                return false;
            break;
        default:
            usage(stderr);
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "weir-proxy: \"%s\" is not an option\n", argv[optind]);
        return false;
    }
    return true;
}

static const char *default_conf(void)
{
    FILE *file = fopen("conf/nutcracker.yml", "r");

    if (file == NULL)
        return "conf/weir.yml";
    fclose(file);
    return "conf/nutcracker.yml";
}

/* The log must be there before the master: the file's word counts where the command line has none. */
static int open_log(struct main_options *options, const struct conf *conf, struct log **log)
{
    const char *path = options->process.log_path != NULL ? options->process.log_path : conf->process.log_file;
    int level = options->process.log_level >= 0 ? options->process.log_level
                : conf->process.log_level >= 0  ? conf->process.log_level
                                                : LOG_NOTICE;
    int err = log_create(path, level, "weir-proxy", log);

    if (err != 0)
        fprintf(stderr, "weir-proxy: cannot open the log file %s: %s\n", path, err_text(err));
    return err;
}

static int test(const struct process_options *options)
{
    char error[MASTER_ERROR_SIZE];
    int exit_code = check_configuration(options->conf_path, options->stats_port);

    if (exit_code != 0 || process_check(options, error) == 0)
        return exit_code;
    fprintf(stderr, "weir-proxy: %s\n", error);
    return 1;
}

int main(int argc, char **argv)
{
    struct main_options options = {
        .process = {.stats_port = -1, .stats_interval_ms = -1, .log_level = -1}};
    struct master_program program;
    struct conf_error error;
    struct conf *conf = NULL;
    struct log *log = NULL;
    char path[PATH_MAX];
    int exit_code;

    master_title_setup(argc, argv);
    if (!parse_options(argc, argv, &options))
        return 1;
    if (options.is_done)
        return options.exit_code;
    if (options.process.conf_path == NULL)
        options.process.conf_path = default_conf();
    if (options.is_test)
        return test(&options.process);
    if (conf_load(options.process.conf_path, &conf, &error) != 0) {
        fprintf(stderr, "weir-proxy: %s\n", error.text);
        return 1;
    }
    for (uint32_t i = 0; i < conf->warnings_count; i++)
        fprintf(stderr, "weir-proxy: warning: %s\n", conf->warnings[i].text);
    if (realpath(options.process.conf_path, path) != NULL)
        options.process.conf_path = path;
    if (options.process.pid_path == NULL && conf->process.pid_file != NULL)
        options.process.pid_path = must_strdup(conf->process.pid_file);
    if (open_log(&options, conf, &log) != 0) {
        conf_destroy(&conf);
        return 1;
    }
    conf_destroy(&conf);
    options.process.log = log;
    process_program(&options.process, log, argc, argv, &program);
    exit_code = master_run(&program);
    log_destroy(&log);
    return exit_code;
}
