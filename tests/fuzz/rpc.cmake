# SPDX-License-Identifier: Apache-2.0
lockstep_fuzz(rpc_channel tests/fuzz/fuzz_rpc_channel.c tests/fuzz/corpus/rpc_channel DEPS rpc)
lockstep_fuzz(rpc_record tests/fuzz/fuzz_rpc_record.c tests/fuzz/corpus/rpc_record DEPS rpc)
