/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/served.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"

struct served_text *served_text_ref(struct served_text *text)
{
    atomic_fetch_add(&text->refs, 1);
    return text;
}

void served_text_unref(struct served_text **text)
{
    struct served_text *t = *text;

    *text = NULL;
    if (t != NULL && atomic_fetch_sub(&t->refs, 1) == 1) {
        tokenizer_destroy(&t->tokenizer);
        chat_prompt_destroy(&t->prompt);
        free(t);
    }
}

void registry_init(struct registry *registry)
{
    *registry = (struct registry){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void registry_release(struct registry *registry)
{
    for (uint32_t i = 0; i < registry->n; i++) { /* news of one may lead to another entry */
        host_destroy(&registry->models[i]->host);
    }
    for (uint32_t i = 0; i < registry->n; i++) {
        struct served *served = registry->models[i];

        metrics_destroy(&served->metrics);
        served_text_unref(&served->text);
        for (uint32_t j = 0; j < served->n_names; j++) {
            free((char *)served->names[j]);
        }
        free((char *)served->path);
        free(served);
    }
    pthread_mutex_destroy(&registry->lock);
    *registry = (struct registry){0};
}

/* Under the lock. */
static struct served *find(struct registry *registry, const char *name)
{
    for (uint32_t i = 0; i < registry->n; i++) {
        struct served *served = registry->models[i];

        for (uint32_t j = 0; j < served->n_names; j++) {
            if (strcmp(served->names[j], name) == 0) {
                return served;
            }
        }
    }
    return NULL;
}

enum status registry_add(struct registry *registry, const char *const *names, uint32_t n_names,
                         const char *path, struct served **ret_served, struct err *err)
{
    struct served *served;
    enum status status = STATUS_OK;

    ENSURE(n_names > 0);
    if (n_names > SERVED_MAX_NAMES) {
        return err_set(err, STATUS_LIMIT, "a model has at most %d names", SERVED_MAX_NAMES);
    }
    pthread_mutex_lock(&registry->lock);
    if (registry->n == SERVED_MAX) {
        status = err_set(err, STATUS_LIMIT, "at most %d models are served at once", SERVED_MAX);
    }
    for (uint32_t i = 0; i < n_names && status == STATUS_OK; i++) {
        if (names[i][0] == '\0' || find(registry, names[i]) != NULL) {
            status =
                err_set(err, STATUS_INVALID, "two models cannot both be named \"%s\"", names[i]);
        }
    }
    if (status == STATUS_OK) {
        served = xalloc(sizeof(*served));
        for (uint32_t i = 0; i < n_names; i++) {
            served->names[served->n_names++] = xstrdup(names[i]);
        }
        served->path = xstrdup(path);
        served->created = (int64_t)time(NULL);
        registry->models[registry->n++] = served;
        *ret_served = served;
    }
    pthread_mutex_unlock(&registry->lock);
    return status;
}

struct served *registry_find(struct registry *registry, const char *name)
{
    struct served *served;

    pthread_mutex_lock(&registry->lock);
    served = find(registry, name);
    pthread_mutex_unlock(&registry->lock);
    return served;
}

struct served *registry_at(struct registry *registry, uint32_t i)
{
    struct served *served;

    pthread_mutex_lock(&registry->lock);
    served = i < registry->n ? registry->models[i] : NULL;
    pthread_mutex_unlock(&registry->lock);
    return served;
}

uint32_t registry_count(struct registry *registry)
{
    uint32_t n;

    pthread_mutex_lock(&registry->lock);
    n = registry->n;
    pthread_mutex_unlock(&registry->lock);
    return n;
}

struct served_text *served_take_text(struct registry *registry, struct served *served)
{
    struct served_text *text;

    pthread_mutex_lock(&registry->lock);
    text = served->text == NULL ? NULL : served_text_ref(served->text);
    pthread_mutex_unlock(&registry->lock);
    return text;
}

void served_set_text(struct registry *registry, struct served *served, struct served_text *text)
{
    struct served_text *old;

    pthread_mutex_lock(&registry->lock);
    old = served->text;
    served->text = text;
    pthread_mutex_unlock(&registry->lock);
    served_text_unref(&old);
}
