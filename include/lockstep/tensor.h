/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles of memory on a device, and functions that run there. A handle knows its device, the
 * generation of the context that it was made in, its type and its count; each use is checked
 * against what is there, so that a stale or wrong buffer is refused rather than read.
 */
#pragma once

#include <lockstep/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lockstep_tensor;

struct lockstep_tensor_info {
    struct lockstep_device *device;
    uint64_t generation;
    enum lockstep_type type;
    size_t count;
    bool owned; /* by the handle; otherwise borrowed from the caller */
    bool stale; /* the device's context is not the one it was made in */
};

/* Zeroed memory on the device. Waits up to timeout_ms for the context to be up. */
LOCKSTEP_API enum lockstep_status lockstep_tensor_create(struct lockstep_device *device,
                                                         enum lockstep_type type, size_t count,
                                                         uint32_t timeout_ms,
                                                         struct lockstep_tensor **ret_tensor,
                                                         struct lockstep_error *error);

/* A handle of the caller's memory, which must stay until the handle and all operations with it
 * have ended, and be aligned to its type. UNSUPPORTED where the device cannot reach it
 * (own_process).
 */
LOCKSTEP_API enum lockstep_status lockstep_tensor_borrow(struct lockstep_device *device,
                                                         enum lockstep_type type, void *data,
                                                         size_t count, uint32_t timeout_ms,
                                                         struct lockstep_tensor **ret_tensor,
                                                         struct lockstep_error *error);

/* A handle of elements [first, first + count) of a tensor, with the same memory. */
LOCKSTEP_API enum lockstep_status lockstep_tensor_slice(struct lockstep_tensor *tensor,
                                                        size_t first, size_t count,
                                                        struct lockstep_tensor **ret_slice,
                                                        struct lockstep_error *error);

/* Gives the handle up; operations under way keep the memory until they end. NULL is fine. */
LOCKSTEP_API void lockstep_tensor_destroy(struct lockstep_tensor **tensor);

LOCKSTEP_API void lockstep_tensor_info(struct lockstep_tensor *tensor,
                                       struct lockstep_tensor_info *ret_info);

/* The memory, to be read and written while no operation uses it; NULL and STALE if it is stale. */
LOCKSTEP_API void *lockstep_tensor_data(struct lockstep_tensor *tensor,
                                        struct lockstep_error *error);

/* Copies count elements from first on, between operations that are already queued and those that
 * come later: waits for its turn and its end, at most timeout_ms. */
LOCKSTEP_API enum lockstep_status lockstep_tensor_read(struct lockstep_tensor *tensor, size_t first,
                                                       size_t count, void *out, uint32_t timeout_ms,
                                                       struct lockstep_error *error);
LOCKSTEP_API enum lockstep_status lockstep_tensor_write(struct lockstep_tensor *tensor,
                                                        size_t first, size_t count, const void *in,
                                                        uint32_t timeout_ms,
                                                        struct lockstep_error *error);

struct lockstep_call_args {
    size_t bytes;                           /* sizeof(struct lockstep_call_args) */
    struct lockstep_tensor *const *tensors; /* [n_tensors], of that device; borrowed for the call */
    size_t n_tensors;
    const void *args; /* copied; at most LOCKSTEP_BYTES_MAX */
    size_t args_bytes;
};

/* Runs a registered function on a device, after what is queued there. Without tensors it waits for
 * a context that is not up yet; with tensors it needs theirs. One that runs past its deadline ends
 * with TIMEOUT for whoever waits; in a process of its own the context is then lost, otherwise
 * it goes on, keeps the device, and uses its tensors' memory until it returns. */
LOCKSTEP_API enum lockstep_status
lockstep_call(struct lockstep_device *device, const char *function,
              const struct lockstep_call_args *args, const struct lockstep_options *options,
              struct lockstep_op **ret_op, struct lockstep_error *error);

#ifdef __cplusplus
}
#endif
