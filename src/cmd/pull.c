/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep pull: a model of the hub into the cache. The path that other commands take is the only
 * thing on standard output.
 */
#include "cmd/cmd.h"
#include "cmd/fetch.h"

int cmd_pull(const struct options *options)
{
    const struct hub_options hub = {.name = options->path,
                                    .revision = options->revision,
                                    .cache = options->cache,
                                    .endpoint = options->endpoint};
    struct err err = {0};
    char *path = NULL;

    if (fetch_pull(&hub, options->quiet, &path, &err) != STATUS_OK) {
        return cmd_fail(&err); /* after a signal it is the signal that ends us */
    }
    puts(path);
    free(path);
    return CMD_OK;
}
