/* PROXY protocol version 2 (haproxy's proxy-protocol.txt, section 2.2): the client's address as a balancer in front saw it. */
#ifndef SALLYPORT_PROXY_PREFACE_H
#define SALLYPORT_PROXY_PREFACE_H

#include "sallyport/base/addr.h"
#include "sallyport/base/slice.h"

#define PREFACE_MAX 536 /* 16 bytes and the longest address block; TLVs that go past it are refused */

enum preface_status { PREFACE_MALFORMED = 0, PREFACE_MORE, PREFACE_COMPLETE };
/* *ret_len bytes are the header. LOCAL connections and AF_UNSPEC leave *ret_client alone (family 0). */
enum preface_status preface_read(struct slice bytes, struct addr *ret_client, uint16_t *ret_port, size_t *ret_len);

#endif
