/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - `weir-proxy -t`: is the file right, and what would it do.
 */
#pragma once

/* Prints as twemproxy does, then each pool's ring fingerprint. The exit code for main(). */
int check_configuration(const char *path);
