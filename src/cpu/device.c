/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU device: threads, scratch memory, and the table that ties the operators together. */
#include "cpu/device.h"

#include "base/mem.h"

static void device_destroy(struct ops_device **device)
{
    struct ops_device *d = *device;

    if (d == NULL) {
        return;
    }
    pool_destroy(&d->pool);
    for (uint32_t i = 0; d->scratch != NULL && i < d->n_threads; i++) {
        mem_unmap(d->scratch[i], CPU_SCRATCH_BYTES);
    }
    free(d->scratch);
    mem_unmap(d->rounded, d->rounded_bytes);
    for (int wide = 0; wide < 2; wide++) {
        mem_unmap(d->quantised[wide], d->quantised_bytes[wide]);
    }
    free(d);
    *device = NULL;
}

/* While the calling thread waits: a sign of life if another has given one. */
static void pass_on(void *arg)
{
    struct ops_device *device = arg;
    uint32_t beats = atomic_load_explicit(&device->beats, memory_order_relaxed);

    if (beats != device->beats_seen) {
        device->beats_seen = beats;
        device_tick(device, 0);
    }
}

static enum status device_create(const struct ops_config *config, struct ops_device **ret_device,
                                 struct err *err)
{
    enum cpu_level most = CPU_LEVEL_COUNT - 1;
    struct ops_device *d;
    enum status status;

    if (config->level != NULL) {
        status = cpu_level_parse(config->level, &most, err);
        if (status != STATUS_OK) {
            return status;
        }
    }
    d = xalloc(sizeof(*d));
    d->tick = config->tick;
    d->tick_arg = config->tick_arg;
    d->n_threads = config->n_threads > 0 ? config->n_threads : cpu_cores_usable();
    d->level = cpu_kernels_init(&d->kernels, most);
    d->scratch = xcalloc(d->n_threads, sizeof(*d->scratch));
    for (uint32_t i = 0; i < d->n_threads; i++) {
        d->scratch[i] = mem_map(CPU_SCRATCH_BYTES);
        if (d->scratch[i] == NULL) {
            status = err_set(err, STATUS_NO_MEMORY,
                             "no memory for the scratch of compute thread %u", i + 1);
            goto fail;
        }
    }
    status = pool_create(d->n_threads, &d->pool, err);
    if (status != STATUS_OK) {
        goto fail;
    }
    pool_set_idle(d->pool, pass_on, d);
    *ret_device = d;
    return STATUS_OK;
fail:
    device_destroy(&d);
    return status;
}

/* *memory, *size bytes of it, becomes at least `bytes` long; its content is lost. */
static bool grow(void **memory, size_t *size, size_t bytes)
{
    void *made;

    if (bytes <= *size) {
        return true;
    }
    made = mem_map(bytes);
    if (made == NULL) {
        return false;
    }
    mem_unmap(*memory, *size);
    *memory = made;
    *size = bytes;
    return true;
}

static enum status device_reserve(struct ops_device *device, uint32_t rows, uint32_t cols,
                                  uint32_t groups, struct err *err)
{
    uint32_t n = device->n_threads;
    uint32_t each = (uint32_t)div_up(rows, n);
    size_t rounded = (size_t)each * OPS_STRIDE(cols) * sizeof(float); /* whole lines */
    bool enough = grow((void **)&device->rounded, &device->rounded_bytes, n * rounded);

    for (int wide = 0; wide < 2; wide++) {
        size_t bytes;

        enough = enough && quant_bytes(each, groups, wide != 0, &bytes) &&
                 grow(&device->quantised[wide], &device->quantised_bytes[wide],
                      n * round_up(bytes, CACHE_LINE));
    }
    if (!enough) {
        return err_set(err, STATUS_NO_MEMORY, "no memory for %u activations of %u", rows, cols);
    }
    return STATUS_OK;
}

static const char *device_arith_class(const struct ops_device *device)
{
    (void)device;
#if defined(__x86_64__)
    return "canonical-x86-64";
#else
    return "canonical-arm64";
#endif
}

static void device_tune(struct ops_device *device, const struct ops_tune *tune)
{
    device->tune = *tune;
}

/* As measured on this machine, or where it was (bench/results/2026-11-26-bf16-12.md): with 8 lanes.
 */
static bool device_likes_bf16_12(const struct ops_device *device)
{
    if (device->tune.likes_bf16_12 != OPS_UNKNOWN) {
        return device->tune.likes_bf16_12 == OPS_YES;
    }
    return device->level == CPU_LEVEL_AVX2 || device->level == CPU_LEVEL_AVXVNNI;
}

static const char *device_level(const struct ops_device *device)
{
    return cpu_level_name(device->level);
}

static uint32_t device_n_threads(const struct ops_device *device)
{
    return device->n_threads;
}

static void *device_alloc(struct ops_device *device, size_t bytes)
{
    (void)device;
    return mem_map(bytes);
}

static void device_release(struct ops_device *device, void *memory, size_t bytes)
{
    (void)device;
    mem_unmap(memory, bytes);
}

static void step_enter(struct ops_device *device)
{
    float_env_enter(&device->caller_fenv);
}

static void step_leave(struct ops_device *device)
{
    row_sync(device);
    ENSURE(float_env_is_canonical());
    float_env_leave(&device->caller_fenv);
}

const struct ops cpu_ops = {
    .name = "cpu",
    .create = device_create,
    .destroy = device_destroy,
    .tune = device_tune,
    .reserve = device_reserve,
    .arith_class = device_arith_class,
    .level = device_level,
    .likes_bf16_12 = device_likes_bf16_12,
    .n_threads = device_n_threads,
    .alloc = device_alloc,
    .release = device_release,
    .step_enter = step_enter,
    .step_leave = step_leave,
    .sync = row_sync,
    .embed = cpu_op_embed,
    .rmsnorm = cpu_op_rmsnorm,
    .linear = cpu_op_linear,
    .rope = cpu_op_rope,
    .silu_mul = cpu_op_silu_mul,
    .add = cpu_op_add,
    .kv_page_bytes = cpu_op_kv_page_bytes,
    .kv_page_clear = cpu_op_kv_page_clear,
    .kv_write = cpu_op_kv_write,
    .attention = cpu_op_attention,
    .has_nan = cpu_op_has_nan,
    .masses = cpu_op_masses,
};
