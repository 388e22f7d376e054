#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Generates configure and Makefile.in. Nothing that it writes belongs into a commit.
set -e
cd "$(dirname "$0")"
exec autoreconf --install --force --warnings=all,no-portability
