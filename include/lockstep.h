/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liblockstep: devices that are restarted under a stable name, worlds of them with one
 * communicator and an epoch, and every collective on handles that know what they are. A device or
 * process that dies costs an epoch, never a hang: what was in flight ends with an error, the world
 * rebuilds itself, and the program goes on with fresh handles.
 *
 * One program drives all ranks: it gives one handle a rank and gets one joined result. Functions
 * may be called by any thread unless their comment says otherwise; those that take an error fill it
 * on failure only (NULL: not wanted), and outputs (ret_...) are untouched then. Structs that are
 * handed in begin with their size; a field that is 0 means the default.
 */
#pragma once

#include <lockstep/collectives.h>
#include <lockstep/device.h>
#include <lockstep/tensor.h>
#include <lockstep/types.h>
#include <lockstep/watch.h>
#include <lockstep/world.h>
