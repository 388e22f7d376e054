/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/err.h"

const char *err_text(int err)
{
    switch (err) {
    case 0:
        return "ok";
    case ERR_FULL:
        return "full";
    case ERR_NOT_FOUND:
        return "not found";
    case ERR_EXISTS:
        return "exists already";
    case ERR_INVALID:
        return "invalid";
    case ERR_CORRUPT:
        return "corrupt";
    case ERR_EOF:
        return "closed by peer";
    case ERR_CANCELED:
        return "canceled";
    case ERR_AGAIN:
        return "try again";
    case ERR_TIMEOUT:
        return "timed out";
    case ERR_UNSUPPORTED:
        return "unsupported";
    default:
        return err < 0 && err > ERR_FULL ? strerror(-err) : "unknown";
    }
}
