# SPDX-License-Identifier: Apache-2.0
# WEIR_TRY_CFLAG(FLAG, [VARIABLE = WEIR_CFLAGS]): appends FLAG if the compiler takes it without a word.
AC_DEFUN([WEIR_TRY_CFLAG], [
    AS_VAR_PUSHDEF([weir_ok], [weir_cv_cflag_$1])
    AC_CACHE_CHECK([whether $CC takes $1], [weir_ok], [
        weir_saved_cflags="$CFLAGS"
        CFLAGS="$CFLAGS -Werror $1"
        AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <string.h>]], [[]])],
            [AS_VAR_SET([weir_ok], [yes])], [AS_VAR_SET([weir_ok], [no])])
        CFLAGS="$weir_saved_cflags"])
    AS_VAR_IF([weir_ok], [yes], [m4_default([$2], [WEIR_CFLAGS])="$m4_default([$2], [WEIR_CFLAGS]) $1"])
    AS_VAR_POPDEF([weir_ok])
])

# AX_WEIR_FLAGS: warnings, hardening, sanitizers, coverage, fuzzing and the allocator.
# Sets WEIR_CPPFLAGS WEIR_CFLAGS WEIR_LDFLAGS WEIR_CONVERSION_CFLAGS FUZZ_CFLAGS JEMALLOC_LIBS, and
# weir_hardening and weir_allocator for the summary.
AC_DEFUN([AX_WEIR_FLAGS], [
    WEIR_CPPFLAGS=""
    WEIR_CFLAGS="-std=gnu11 -fno-strict-aliasing -fno-omit-frame-pointer -fno-common -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wno-unused-parameter"
    WEIR_CONVERSION_CFLAGS="-Wconversion -Wno-sign-conversion"
    WEIR_LDFLAGS=""
    FUZZ_CFLAGS=""
    sanitized=no
    # clang sees where a switch on an enum has a default, which would hide the next new value.
    WEIR_TRY_CFLAG([-Wcovered-switch-default])
    AS_IF([test "x$enable_werror" = xyes], [WEIR_CFLAGS="$WEIR_CFLAGS -Werror"])
    AS_IF([test "x$enable_fuzz" = xyes], [
        AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[
            #ifndef __clang__
            #error not clang
            #endif]], [[]])], [],
            [AC_MSG_ERROR([--enable-fuzz needs clang: configure with CC=clang])])
        FUZZ_CFLAGS="-fsanitize=fuzzer"
        WEIR_CFLAGS="$WEIR_CFLAGS -fsanitize=fuzzer-no-link"
        WEIR_CPPFLAGS="$WEIR_CPPFLAGS -DWEIR_FUZZ=1"
        enable_asan_ubsan=yes])
    AS_IF([test "x$enable_asan_ubsan" = xyes], [
        sanitized=yes
        with_jemalloc=no
        WEIR_CFLAGS="$WEIR_CFLAGS -fsanitize=address,undefined -fno-sanitize-recover=all"
        WEIR_LDFLAGS="$WEIR_LDFLAGS -fsanitize=address,undefined"])
    AS_IF([test "x$enable_coverage" = xyes], [
        sanitized=yes
        with_jemalloc=no
        WEIR_CFLAGS="$WEIR_CFLAGS --coverage -fprofile-update=atomic"
        WEIR_LDFLAGS="$WEIR_LDFLAGS --coverage"])
    # Hardening costs under 1 % in the proxy and is left to the sanitizers in their builds. Fortify
    # needs optimisation: with -O0 the C library warns, and the probe leaves it out.
    weir_hardening="PIE RELRO now"
    AS_IF([test "$sanitized" = no], [
        WEIR_TRY_CFLAG([-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2], [WEIR_CPPFLAGS])
        WEIR_TRY_CFLAG([-fstack-protector-strong])
        WEIR_TRY_CFLAG([-fstack-clash-protection])
        WEIR_TRY_CFLAG([-fcf-protection])
        for flag in $WEIR_CPPFLAGS $WEIR_CFLAGS; do
            AS_CASE([$flag],
                [-D_FORTIFY*], [weir_hardening="$weir_hardening fortify"],
                [-fstack-protector*], [weir_hardening="$weir_hardening stack-protector"],
                [-fstack-clash*], [weir_hardening="$weir_hardening stack-clash"],
                [-fcf-*], [weir_hardening="$weir_hardening cf-protection"])
        done])
    WEIR_CFLAGS="$WEIR_CFLAGS -fPIE"
    WEIR_LDFLAGS="$WEIR_LDFLAGS -pie -Wl,-z,relro,-z,now"
    JEMALLOC_LIBS=""
    weir_allocator="the C library's"
    AS_IF([test "x$with_jemalloc" != xno], [
        AC_CHECK_LIB([jemalloc], [mallctl], [
            JEMALLOC_LIBS="-ljemalloc"
            weir_allocator=jemalloc
            AC_DEFINE([HAVE_JEMALLOC], [1], [Whether the programs run on jemalloc])],
            [AC_MSG_ERROR([jemalloc not found: install libjemalloc-dev or configure --without-jemalloc])])])
    AM_CONDITIONAL([FUZZ], [test "x$enable_fuzz" = xyes])
    AM_CONDITIONAL([SANITIZED], [test "x$enable_asan_ubsan" = xyes])
    AM_CONDITIONAL([COVERAGE], [test "x$enable_coverage" = xyes])
    AC_SUBST([WEIR_CPPFLAGS])
    AC_SUBST([WEIR_CFLAGS])
    AC_SUBST([WEIR_CONVERSION_CFLAGS])
    AC_SUBST([WEIR_LDFLAGS])
    AC_SUBST([FUZZ_CFLAGS])
    AC_SUBST([JEMALLOC_LIBS])
])
