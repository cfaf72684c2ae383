/* The special-purpose ranges that nobody may dial by default: rows alone, for the address guard, which judges, and for the
 * fence, which has the kernel refuse the same. They follow the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC
 * 6890, RFC 8190) and the vendors' documentation of their metadata services. */
#ifndef SALLYPORT_BASE_SPECIAL_RANGES_H
#define SALLYPORT_BASE_SPECIAL_RANGES_H

#include <stdint.h>

/* X(base, bits, name). Sorted by base, wider first, so that the last row that contains an address is the most specific. */
#define SPECIAL_RANGES_V4(X)                                        \
    X(0x00000000, 8, "this network (RFC 791)")                      \
    X(0x0a000000, 8, "private use (RFC 1918)")                      \
    X(0x64400000, 10, "shared address space (RFC 6598)")            \
    X(0x7f000000, 8, "loopback (RFC 1122)")                         \
    X(0xa9fe0000, 16, "link local (RFC 3927)")                      \
    X(0xac100000, 12, "private use (RFC 1918)")                     \
    X(0xc0000000, 24, "IETF protocol assignments (RFC 6890)")       \
    X(0xc0000200, 24, "documentation TEST-NET-1 (RFC 5737)")        \
    X(0xc01fc400, 24, "AS112-v4 (RFC 7535)")                        \
    X(0xc034c100, 24, "AMT (RFC 7450)")                             \
    X(0xc0586300, 24, "6to4 relay anycast (deprecated) (RFC 7526)") \
    X(0xc0a80000, 16, "private use (RFC 1918)")                     \
    X(0xc0af3000, 24, "direct delegation AS112 (RFC 7534)")         \
    X(0xc6120000, 15, "benchmarking (RFC 2544)")                    \
    X(0xc6336400, 24, "documentation TEST-NET-2 (RFC 5737)")        \
    X(0xcb007100, 24, "documentation TEST-NET-3 (RFC 5737)")        \
    X(0xe0000000, 4, "multicast (RFC 1112, RFC 5771)")              \
    X(0xf0000000, 4, "reserved (RFC 1112)")                         \
    X(0xffffffff, 32, "limited broadcast (RFC 8190, RFC 919)")

/* X(high half, low half, bits, name), sorted likewise. Of IPv6 only 2000::/3 (global unicast) is open at all; rows outside
 * it give the refusal its name. */
#define SPECIAL_RANGES_V6(X)                                                                                     \
    X(UINT64_C(0x0000000000000000), UINT64_C(0x0000000000000000), 96, "IPv4-compatible (deprecated) (RFC 4291)") \
    X(UINT64_C(0x0000000000000000), UINT64_C(0x0000000000000000), 128, "unspecified (RFC 4291)")                 \
    X(UINT64_C(0x0000000000000000), UINT64_C(0x0000000000000001), 128, "loopback (RFC 4291)")                    \
    X(UINT64_C(0x0000000000000000), UINT64_C(0x0000ffff00000000), 96, "IPv4-mapped (RFC 4291)")                  \
    X(UINT64_C(0x0000000000000000), UINT64_C(0xffff000000000000), 96, "IPv4-translated (RFC 2765)")              \
    X(UINT64_C(0x0064ff9b00000000), UINT64_C(0x0000000000000000), 96, "NAT64 well-known prefix (RFC 6052)")      \
    X(UINT64_C(0x0064ff9b00010000), UINT64_C(0x0000000000000000), 48, "local-use NAT64 (RFC 8215)")              \
    X(UINT64_C(0x0100000000000000), UINT64_C(0x0000000000000000), 64, "discard-only (RFC 6666)")                 \
    X(UINT64_C(0x0100000000000001), UINT64_C(0x0000000000000000), 64, "dummy prefix (RFC 9780)")                 \
    X(UINT64_C(0x2001000000000000), UINT64_C(0x0000000000000000), 23, "IETF protocol assignments (RFC 2928)")    \
    X(UINT64_C(0x2001000000000000), UINT64_C(0x0000000000000000), 32, "Teredo (RFC 4380)")                       \
    X(UINT64_C(0x2001000100000000), UINT64_C(0x0000000000000001), 128, "PCP anycast (RFC 7723)")                 \
    X(UINT64_C(0x2001000100000000), UINT64_C(0x0000000000000002), 128, "TURN anycast (RFC 8155)")                \
    X(UINT64_C(0x2001000100000000), UINT64_C(0x0000000000000003), 128, "DNS-SD SRP anycast (RFC 9665)")          \
    X(UINT64_C(0x2001000200000000), UINT64_C(0x0000000000000000), 48, "benchmarking (RFC 5180)")                 \
    X(UINT64_C(0x2001000300000000), UINT64_C(0x0000000000000000), 32, "AMT (RFC 7450)")                          \
    X(UINT64_C(0x2001000401120000), UINT64_C(0x0000000000000000), 48, "AS112-v6 (RFC 7535)")                     \
    X(UINT64_C(0x2001001000000000), UINT64_C(0x0000000000000000), 28, "ORCHID (deprecated) (RFC 4843)")          \
    X(UINT64_C(0x2001002000000000), UINT64_C(0x0000000000000000), 28, "ORCHIDv2 (RFC 7343)")                     \
    X(UINT64_C(0x2001003000000000), UINT64_C(0x0000000000000000), 28, "drone remote ID (RFC 9374)")              \
    X(UINT64_C(0x20010db800000000), UINT64_C(0x0000000000000000), 32, "documentation (RFC 3849)")                \
    X(UINT64_C(0x2002000000000000), UINT64_C(0x0000000000000000), 16, "6to4 (RFC 3056)")                         \
    X(UINT64_C(0x2620004f80000000), UINT64_C(0x0000000000000000), 48, "direct delegation AS112 (RFC 7534)")      \
    X(UINT64_C(0x3ffe000000000000), UINT64_C(0x0000000000000000), 16, "6bone (returned) (RFC 3701)")             \
    X(UINT64_C(0x3fff000000000000), UINT64_C(0x0000000000000000), 20, "documentation (RFC 9637)")                \
    X(UINT64_C(0x5f00000000000000), UINT64_C(0x0000000000000000), 16, "segment routing SIDs (RFC 9602)")         \
    X(UINT64_C(0xfc00000000000000), UINT64_C(0x0000000000000000), 7, "unique local (RFC 4193)")                  \
    X(UINT64_C(0xfe80000000000000), UINT64_C(0x0000000000000000), 10, "link local (RFC 4291)")                   \
    X(UINT64_C(0xfec0000000000000), UINT64_C(0x0000000000000000), 10, "site local (deprecated) (RFC 3879)")      \
    X(UINT64_C(0xff00000000000000), UINT64_C(0x0000000000000000), 8, "multicast (RFC 4291)")

/* X(address, name): services of clouds and hosts, closed even where their range was opened: each needs an entry of its own.
 * 168.63.129.16 stands in a public range and in no registry. */
#define SPECIAL_SERVICES(X)                                       \
    X("169.254.169.254", "AWS, Azure, GCP, OCI and other clouds") \
    X("169.254.169.253", "AWS VPC resolver")                      \
    X("169.254.169.123", "AWS time service")                      \
    X("169.254.170.2", "AWS ECS task credentials")                \
    X("169.254.170.23", "AWS EKS Pod Identity")                   \
    X("169.254.42.42", "Scaleway metadata")                       \
    X("169.254.0.23", "Tencent metadata")                         \
    X("100.100.100.200", "Alibaba metadata")                      \
    X("192.0.0.192", "Oracle Cloud classic metadata")             \
    X("168.63.129.16", "Azure WireServer")                        \
    X("fd00:ec2::254", "AWS metadata IPv6")                       \
    X("fd00:ec2::253", "AWS resolver IPv6")                       \
    X("fd00:ec2::23", "EKS Pod Identity IPv6")                    \
    X("fd20:ce::254", "GCP metadata IPv6")                        \
    X("fd00:c1::a9fe:a9fe", "OCI metadata IPv6")                  \
    X("fd00:42::42", "Scaleway metadata IPv6")                    \
    X("fd00:a9fe:a9fe::1", "Linode metadata IPv6")                \
    X("fe80::a9fe:a9fe", "OpenStack metadata IPv6")

#endif
