/* SPDX-License-Identifier: Apache-2.0 */
/* Between channel.c, channel_io.c and channel_read.c. */
#pragma once

#include <sys/types.h>

#include "rpc/channel.h"

/* One sendmsg of what is queued, with the descriptors of the frame that begins there. As sendmsg:
 * -1 and errno on failure. */
ssize_t channel_send_part(struct channel *channel);

/* One recvmsg into the decoder and the descriptor queue. STATUS_PENDING: nothing there.
 * STATUS_LINK: cut off. */
NODISCARD enum status channel_receive_part(struct channel *channel, struct err *err);

/* The next message that is wanted; see channel_try. */
NODISCARD enum status channel_read(struct channel *channel, struct message *ret_message,
                                   struct err *err);
