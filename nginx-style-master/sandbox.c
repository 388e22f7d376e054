/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/process.h"
#include "common/base/log.h"

int sandbox_enter(struct log *log)
{
    log_debug(log, "no sandbox");
    return ERR_UNSUPPORTED;
}
