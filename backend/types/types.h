/* SPDX-License-Identifier: Apache-2.0 */
/*
 * types.h - the table of value types that a store is given (store_options.types).
 */
#pragma once
#include "backend/store/object.h"

extern const struct object_ops string_ops; /* strings that are not inline, types/string.h */
extern const struct object_ops list_ops;
extern const struct object_ops set_ops;
extern const struct object_ops zset_ops;
extern const struct object_ops hash_ops;
