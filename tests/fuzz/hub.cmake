# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(hub tests/fuzz/fuzz_hub.c tests/fuzz/corpus/hub DEPS hub)
