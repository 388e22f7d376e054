/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static NORETURN void wait_for_grandchild(int fd)
{
    unsigned char code = 1;
    ssize_t got;

    do
        got = read(fd, &code, 1);
    while (got < 0 && errno == EINTR);
    _exit(code);
}

int daemon_detach(int *notify_fd)
{
    int pipe_fds[2], fd;
    pid_t pid;

    fflush(NULL);
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return -errno;
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0) {
        close(pipe_fds[1]);
        wait_for_grandchild(pipe_fds[0]);
    }
    close(pipe_fds[0]);
    if (setsid() < 0)
        return -errno;
    /* Once more, so that no terminal can ever become ours. The leader's exit sends HUP. */
    signal(SIGHUP, SIG_IGN);
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid > 0)
        _exit(0);
    umask(0);
    if (chdir("/") != 0)
        return -errno;
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
        return -errno;
    close(fd);
    *notify_fd = pipe_fds[1];
    return 0;
}

void daemon_notify(int *notify_fd, int code)
{
    unsigned char byte = (unsigned char)code;

    if (*notify_fd < 0)
        return;
    if (write(*notify_fd, &byte, 1) < 0)
        MAYBE(errno);
    close(*notify_fd);
    *notify_fd = -1;
}

void daemon_quiet(void)
{
    /* Which daemon_detach() made /dev/null; a sandboxed worker could not open that. */
    if (dup2(STDIN_FILENO, STDERR_FILENO) < 0)
        MAYBE(errno);
}

int daemon_pid_check(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

int daemon_pid_write(const char *path)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int err = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, (size_t)len) != len)
        err = errno != 0 ? -errno : -EIO;
    close(fd);
    return err;
}

/* A pid file that names another process by now is that one's. */
void daemon_pid_remove(const char *path, pid_t only_if)
{
    char text[24] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len;

    if (fd < 0)
        return;
    len = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (len > 0 && strtol(text, NULL, 10) == (long)only_if)
        unlink(path);
}
