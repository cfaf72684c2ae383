/* Addresses and prefixes as values. Parsing is inet_pton's and nothing else's: no short, octal, hex or scoped forms. */
#ifndef SALLYPORT_BASE_ADDR_H
#define SALLYPORT_BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "sallyport/base/slice.h"

struct addr {
    uint8_t family;    /* AF_INET, AF_INET6; 0 is "none" */
    uint8_t bytes[16]; /* network order; the first 4 for AF_INET */
};

struct cidr {
    struct addr base; /* host bits are zero */
    uint8_t bits;
};

#define ADDR_TEXT_SIZE 48      /* any address, NUL included */
#define SOCKADDR_TEXT_SIZE 64  /* "[…]:65535" */

bool addr_parse(struct slice text, struct addr *ret);     /* either family, no brackets */
bool addr_parse_v4(struct slice text, struct addr *ret);
bool addr_parse_v6(struct slice text, struct addr *ret);
bool addr_equal(const struct addr *a, const struct addr *b);
void addr_format(const struct addr *a, char text[ADDR_TEXT_SIZE]); /* RFC 5952 as inet_ntop writes it */
bool addr_from_sockaddr(const struct sockaddr *sa, struct addr *ret, uint16_t *ret_port); /* mapped IPv4 becomes IPv4 */
socklen_t addr_to_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ret);
void sockaddr_format(const struct sockaddr *sa, char text[SOCKADDR_TEXT_SIZE]); /* "10.0.0.7:51234", "[::1]:80", "unix" */
void addr_format_with_port(const struct addr *a, uint16_t port, char text[SOCKADDR_TEXT_SIZE]); /* likewise; family 0: "unix" */
/* "10.0.0.0/8", or an address alone (all bits); host bits set are an error. */
bool cidr_parse(struct slice text, struct cidr *ret);
bool cidr_contains(const struct cidr *c, const struct addr *a);
bool cidr_covers(const struct cidr *outer, const struct cidr *inner);
/* "0.0.0.0:3128", "[::]:3128", "127.0.0.1" with default_port (0: a port is required). */
bool sockaddr_parse(struct slice text, uint16_t default_port, struct sockaddr_storage *ret, socklen_t *ret_len);

#endif
