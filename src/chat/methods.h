/* SPDX-License-Identifier: Apache-2.0 */
/* The methods of strings (methods_str.c, methods_shape.c) and of the other types (methods.c). */
#pragma once

#include "chat/env.h"

extern const struct builtin methods_of_str[];
extern const size_t methods_n_of_str;

/* str.format (format.c) */
struct value methods_run_format(struct env *env, struct value self,
                                const struct arguments *arguments);

/* There are cased characters in text, and all have the wanted one of the case properties. */
bool methods_all_cased(const struct str *text, unsigned wanted);

/* Methods of strings by their names (methods_shape.c); see struct builtin. */
struct value methods_run_upper(struct env *env, struct value self, const struct value *args);
struct value methods_run_lower(struct env *env, struct value self, const struct value *args);
struct value methods_run_title(struct env *env, struct value self, const struct value *args);
struct value methods_run_capitalize(struct env *env, struct value self, const struct value *args);
struct value methods_run_swapcase(struct env *env, struct value self, const struct value *args);
struct value methods_run_center(struct env *env, struct value self, const struct value *args);
struct value methods_run_ljust(struct env *env, struct value self, const struct value *args);
struct value methods_run_rjust(struct env *env, struct value self, const struct value *args);
struct value methods_run_zfill(struct env *env, struct value self, const struct value *args);
struct value methods_run_expandtabs(struct env *env, struct value self, const struct value *args);
struct value methods_run_isprintable(struct env *env, struct value self, const struct value *args);
struct value methods_run_isascii(struct env *env, struct value self, const struct value *args);
struct value methods_run_islower(struct env *env, struct value self, const struct value *args);
struct value methods_run_isupper(struct env *env, struct value self, const struct value *args);
struct value methods_run_istitle(struct env *env, struct value self, const struct value *args);
struct value methods_run_isalnum(struct env *env, struct value self, const struct value *args);
struct value methods_run_isalpha(struct env *env, struct value self, const struct value *args);
struct value methods_run_isdecimal(struct env *env, struct value self, const struct value *args);
struct value methods_run_isdigit(struct env *env, struct value self, const struct value *args);
struct value methods_run_isnumeric(struct env *env, struct value self, const struct value *args);
struct value methods_run_isspace(struct env *env, struct value self, const struct value *args);
