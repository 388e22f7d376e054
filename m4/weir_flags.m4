# SPDX-License-Identifier: Apache-2.0
# AX_WEIR_FLAGS: warnings, hardening, sanitizers, coverage, fuzzing and the allocator.
# Sets WEIR_CPPFLAGS WEIR_CFLAGS WEIR_LDFLAGS WEIR_CONVERSION_CFLAGS FUZZ_CFLAGS JEMALLOC_LIBS.
AC_DEFUN([AX_WEIR_FLAGS], [
    WEIR_CPPFLAGS=""
    WEIR_CFLAGS="-std=gnu11 -fno-strict-aliasing -fno-omit-frame-pointer -fno-common -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wno-unused-parameter"
    WEIR_CONVERSION_CFLAGS="-Wconversion -Wno-sign-conversion"
    WEIR_LDFLAGS=""
    FUZZ_CFLAGS=""
    sanitized=no
    AS_IF([test "x$enable_werror" = xyes], [WEIR_CFLAGS="$WEIR_CFLAGS -Werror"])
    AS_IF([test "x$enable_fuzz" = xyes], [
        FUZZ_CFLAGS="-fsanitize=fuzzer"
        WEIR_CFLAGS="$WEIR_CFLAGS -fsanitize=fuzzer-no-link"
        enable_asan_ubsan=yes])
    AS_IF([test "x$enable_asan_ubsan" = xyes], [
        sanitized=yes
        with_jemalloc=no
        WEIR_CFLAGS="$WEIR_CFLAGS -fsanitize=address,undefined -fno-sanitize-recover=all"
        WEIR_LDFLAGS="$WEIR_LDFLAGS -fsanitize=address,undefined"])
    AS_IF([test "x$enable_coverage" = xyes], [
        sanitized=yes
        with_jemalloc=no
        WEIR_CFLAGS="$WEIR_CFLAGS --coverage -O0"
        WEIR_LDFLAGS="$WEIR_LDFLAGS --coverage"])
    AS_IF([test "$sanitized" = no], [
        WEIR_CPPFLAGS="$WEIR_CPPFLAGS -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"
        WEIR_CFLAGS="$WEIR_CFLAGS -fstack-protector-strong"])
    WEIR_CFLAGS="$WEIR_CFLAGS -fPIE"
    WEIR_LDFLAGS="$WEIR_LDFLAGS -pie -Wl,-z,relro,-z,now"
    JEMALLOC_LIBS=""
    AS_IF([test "x$with_jemalloc" != xno], [
        AC_CHECK_LIB([jemalloc], [mallctl], [
            JEMALLOC_LIBS="-ljemalloc"
            AC_DEFINE([HAVE_JEMALLOC], [1], [Whether the programs run on jemalloc])],
            [AC_MSG_ERROR([jemalloc not found: install libjemalloc-dev or configure --without-jemalloc])])])
    AM_CONDITIONAL([FUZZ], [test "x$enable_fuzz" = xyes])
    AM_CONDITIONAL([SANITIZED], [test "x$enable_asan_ubsan" = xyes])
    AC_SUBST([WEIR_CPPFLAGS])
    AC_SUBST([WEIR_CFLAGS])
    AC_SUBST([WEIR_CONVERSION_CFLAGS])
    AC_SUBST([WEIR_LDFLAGS])
    AC_SUBST([FUZZ_CFLAGS])
    AC_SUBST([JEMALLOC_LIBS])
])
