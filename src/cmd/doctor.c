/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lockstep doctor: what this machine offers, what was measured, what is missing and why. Nothing in
 * it is needed to run: a library that is not there is a line, not an error.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "cmd/bandwidth.h"
#include "cmd/cmd.h"
#include "cmd/host.h"
#include "cmd/tuning.h"
#include "cpu/cpu.h"
#include "json/json.h"

enum { MEASURE_MS = 300 };

struct library {
    const char *name;
    bool found;
    char text[512]; /* version and devices, or why not */
};

struct report {
    struct host host;
    enum cpu_level supported;
    enum cpu_level level;
    uint32_t n_threads;
    double read_one; /* bytes a second */
    double read_all;
    struct library libraries[3];
    struct tune_result tune;
    bool is_kept;
    char kept[ERR_TEXT_BYTES]; /* where the choices are, or why they are not */
};

/* Looks a library up by the names it may have; NULL with the loader's own words for the last. */
static void *open_library(struct library *library, const char *const *sonames)
{
    void *handle = NULL;

    for (size_t i = 0; handle == NULL && sonames[i] != NULL; i++) {
        handle = dlopen(sonames[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (handle == NULL) {
        err_escape(dlerror(), library->text, sizeof(library->text));
    }
    return handle;
}

/* dlsym's result as a function pointer, by way of its bytes as POSIX asks for. */
static void find_function(void *handle, const char *name, void *ret_function)
{
    void *symbol = dlsym(handle, name);

    memcpy(ret_function, &symbol, sizeof(symbol));
}

static void look_for_cuda(struct library *library)
{
    int (*init)(unsigned) = NULL;
    int (*count)(int *) = NULL;
    int (*version)(int *) = NULL;
    int n = 0;
    int v = 0;
    int code;
    void *handle = open_library(library, (const char *const[]){"libcuda.so.1", NULL});

    if (handle == NULL) {
        return;
    }
    find_function(handle, "cuInit", &init);
    find_function(handle, "cuDeviceGetCount", &count);
    find_function(handle, "cuDriverGetVersion", &version);
    if (init == NULL || count == NULL || version == NULL) {
        snprintf(library->text, sizeof(library->text), "libcuda.so.1 lacks cuInit");
    } else if ((code = init(0)) != 0) {
        snprintf(library->text, sizeof(library->text),
                 "the driver's library is there, but cuInit gives error %d", code);
    } else if ((code = count(&n)) != 0 || (code = version(&v)) != 0) {
        snprintf(library->text, sizeof(library->text), "the driver gives error %d", code);
    } else {
        library->found = true;
        snprintf(library->text, sizeof(library->text), "driver for CUDA %d.%d, %d device%s",
                 v / 1000, v % 1000 / 10, n, n == 1 ? "" : "s");
    }
}

static void look_for_nccl(struct library *library)
{
    int (*version)(int *) = NULL;
    int v = 0;
    void *handle = open_library(library, (const char *const[]){"libnccl.so.2", NULL});

    if (handle == NULL) {
        return;
    }
    find_function(handle, "ncclGetVersion", &version);
    if (version == NULL || version(&v) != 0) {
        snprintf(library->text, sizeof(library->text), "libnccl.so.2 does not tell its version");
    } else {
        library->found = true;
        snprintf(library->text, sizeof(library->text), "version %d.%d.%d", v / 10000, v / 100 % 100,
                 v % 100);
    }
}

static void look_for_mpi(struct library *library)
{
    enum { LONGEST = 8192 }; /* what either MPI writes at most: 256 and 8,192 bytes */
    int (*version)(char *, int *) = NULL;
    char text[LONGEST + 1] = "";
    int n = 0;
    /* Open MPI 2 to 5, MPICH and its descendants */
    void *handle =
        open_library(library, (const char *const[]){"libmpi.so.12", "libmpi.so.40", NULL});

    if (handle == NULL) {
        return;
    }
    find_function(handle, "MPI_Get_library_version", &version);
    if (version == NULL || version(text, &n) != 0) {
        snprintf(library->text, sizeof(library->text), "libmpi does not tell its version");
    } else {
        library->found = true;
        snprintf(library->text, sizeof(library->text), "%.*s", (int)strcspn(text, ",\n"), text);
    }
}

static enum status measure(uint32_t n_threads, size_t bytes, double *ret_bytes_per_s,
                           struct err *err)
{
    struct bandwidth *bandwidth;
    enum status status = bandwidth_create(n_threads, bytes, &bandwidth, err);

    if (status == STATUS_OK) {
        *ret_bytes_per_s = bandwidth_measure(bandwidth, MEASURE_MS);
        bandwidth_destroy(&bandwidth);
    }
    return status;
}

static void make_choices(const struct options *options, struct report *report)
{
    struct err err = {0};

    report->is_kept = tuning_make(options, &report->tune, &err) == STATUS_OK;
    if (report->is_kept) {
        char *path = tuning_path(options);

        snprintf(report->kept, sizeof(report->kept), "%s", path);
        free(path);
    } else {
        snprintf(report->kept, sizeof(report->kept), "%s", err.text);
    }
}

static enum status collect(const struct options *options, struct report *report, struct err *err)
{
    struct cpu_kernels kernels;
    enum cpu_level most = CPU_LEVEL_COUNT - 1;
    enum status status = host_collect(&report->host, err);
    size_t bytes;

    if (status == STATUS_OK && options->cpu_mask != NULL) {
        status = cpu_level_parse(options->cpu_mask, &most, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    report->supported = cpu_level_supported();
    report->level = cpu_kernels_init(&kernels, most);
    report->n_threads =
        options->given.threads ? (uint32_t)options->threads : report->host.cpus_usable;
    report->libraries[0].name = "CUDA";
    report->libraries[1].name = "NCCL";
    report->libraries[2].name = "MPI";
    look_for_cuda(&report->libraries[0]);
    look_for_nccl(&report->libraries[1]);
    look_for_mpi(&report->libraries[2]);
    bytes = bandwidth_bytes(host_cache_bytes(&report->host), report->host.memory_available_bytes);
    status = measure(1, bytes, &report->read_one, err);
    if (status == STATUS_OK) {
        status = measure(report->n_threads, bytes, &report->read_all, err);
    }
    if (status == STATUS_OK) {
        make_choices(options, report);
    }
    return status;
}

static void print_bytes(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1024;
        unit++;
    }
    printf("%.*f %s", value < 10 && unit > 0 ? 1 : 0, value, units[unit]);
}

static void print_topology(const struct host *host)
{
    printf("packages     %u, %u cores, %u hardware threads\n", host->packages, host->cores,
           host->cpus);
    printf("usable       %u threads (affinity allows %u%s)\n", host->cpus_usable, host->cpus_bound,
           host->cpus_usable < host->cpus_bound ? ", the cgroup's quota fewer" : "");
    for (uint32_t i = 0; i < host->n_nodes; i++) {
        printf("%s node %u: %u hardware threads, ", i == 0 ? "NUMA        " : "            ",
               host->nodes[i].number, host->nodes[i].cpus);
        print_bytes(host->nodes[i].bytes);
        printf("\n");
    }
    for (uint32_t i = 0; i < host->n_caches; i++) {
        const struct host_cache *cache = &host->caches[i];

        printf("%s L%u%s: %u x ", i == 0 ? "caches      " : "            ", cache->level,
               cache->instructions ? " instructions" : "", cache->count);
        print_bytes(cache->bytes);
        printf("\n");
    }
    printf("memory       ");
    print_bytes(host->memory_bytes);
    printf(", ");
    print_bytes(host->memory_available_bytes);
    printf(" available\n");
}

static uint32_t few_rows(const struct ops_tune *tune, enum ops_product product)
{
    return tune->few_rows[product] == 0 ? OPS_FEW_ROWS_MAX : tune->few_rows[product];
}

static void print_choices(const struct report *report)
{
    const struct tune_result *result = &report->tune;
    const struct ops_tune *tune = &result->tune;

    printf("choices      ");
    if (result->bf16 > 0) { /* it was measured */
        printf("BF16 at 12 bits %s (%.2f x as fast as plain)\n             weights are read as a "
               "stream for up to %u rows (BF16), %u (at 12 bits), %u (integers)\n             ",
               tune->likes_bf16_12 == OPS_YES ? "yes" : "no", result->bf16 / result->bf16_12,
               few_rows(tune, OPS_PLAIN), few_rows(tune, OPS_BF16_12),
               few_rows(tune, OPS_INTEGERS));
        if (tune->few_threads > 0) {
            printf("by %u threads\n             ", tune->few_threads);
        }
    }
    printf("%s%s\n", report->is_kept ? "kept in " : "are not kept: ", report->kept);
}

static void print_text(const struct report *report)
{
    const struct host *host = &report->host;

    printf("processor    %s (%s)\n", host->cpu, host->architecture);
    printf("features     %s\n", host->features);
    printf("kernels      %s (supported: %s)\n", cpu_level_name(report->level),
           cpu_level_name(report->supported));
    print_topology(host);
    printf("read rate    %.1f GB/s with 1 thread, %.1f GB/s with %u\n", report->read_one / 1e9,
           report->read_all / 1e9, report->n_threads);
    print_choices(report);
    for (size_t i = 0; i < ARRAY_LEN(report->libraries); i++) {
        const struct library *library = &report->libraries[i];

        printf("%-12s %s: %s\n", library->name, library->found ? "found" : "not found",
               library->text);
    }
}

static json_t *topology_json(const struct host *host)
{
    json_t *caches = json_array();
    json_t *nodes = json_array();

    for (uint32_t i = 0; i < host->n_caches; i++) {
        const struct host_cache *cache = &host->caches[i];

        json_array_append_new(
            caches, json_pack("{s:I,s:b,s:I,s:I}", "level", (json_int_t)cache->level,
                              "instructions", cache->instructions, "bytes",
                              (json_int_t)cache->bytes, "count", (json_int_t)cache->count));
    }
    for (uint32_t i = 0; i < host->n_nodes; i++) {
        json_array_append_new(nodes,
                              json_pack("{s:I,s:I,s:I}", "node", (json_int_t)host->nodes[i].number,
                                        "cpus", (json_int_t)host->nodes[i].cpus, "bytes",
                                        (json_int_t)host->nodes[i].bytes));
    }
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "packages", (json_int_t)host->packages,
                     "cores", (json_int_t)host->cores, "cpus", (json_int_t)host->cpus, "cpus_bound",
                     (json_int_t)host->cpus_bound, "cpus_usable", (json_int_t)host->cpus_usable,
                     "caches", caches, "numa_nodes", nodes);
}

static void print_json(const struct report *report)
{
    const struct host *host = &report->host;
    json_t *libraries = json_object();
    struct buf text = {0};
    json_t *all;

    for (size_t i = 0; i < ARRAY_LEN(report->libraries); i++) {
        const struct library *library = &report->libraries[i];

        json_object_set_new(
            libraries, library->name,
            json_pack("{s:b,s:s}", "found", library->found, "detail", library->text));
    }
    all = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:I,s:I,s:{s:f,s:f,s:I},s:o}", "cpu", host->cpu,
                    "architecture", host->architecture, "features", host->features, "level",
                    cpu_level_name(report->level), "level_supported",
                    cpu_level_name(report->supported), "topology", topology_json(host),
                    "memory_bytes", (json_int_t)host->memory_bytes, "memory_available_bytes",
                    (json_int_t)host->memory_available_bytes, "read_bytes_per_s", "one_thread",
                    report->read_one, "all_threads", report->read_all, "threads",
                    (json_int_t)report->n_threads, "libraries", libraries);
    json_object_set_new(all, "choices", tune_to_json(&report->tune.tune));
    json_object_set_new(all, "choices_file",
                        report->is_kept ? json_string(report->kept) : json_null());
    json_write(&text, all, &json_style_python);
    puts(buf_str(&text));
    buf_release(&text);
    json_decref(all);
}

int cmd_doctor(const struct options *options)
{
    struct report report = {0};
    struct err err = {0};

    if (collect(options, &report, &err) != STATUS_OK) {
        return cmd_fail(&err);
    }
    if (options->json) {
        print_json(&report);
    } else {
        print_text(&report);
    }
    return CMD_OK;
}
