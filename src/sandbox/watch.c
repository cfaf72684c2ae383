/* The packet filter of the watching socket, put together by a small assembler with labels, and the socket itself. The filter
 * passes: TCP SYNs, UDP datagrams, echo requests and what is none of these, to addresses other than loopback and to ports
 * that nobody serves. It sees each packet as it arrives on `lo`, not as it leaves. */
#include "sallyport/sandbox/watch.h"

#include <arpa/inet.h>
#include <assert.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#define WATCH_RCVBUF (256 * 1024) /* a flood beyond it is dropped by the kernel; the first of its kind is what counts */

enum label { NEXT = 0, DROP, PASS, V4, TCP4, UDP4, ICMP4, V6, NOT_LOOPBACK6, TCP6, UDP6, ICMP6, TCP_PORT, UDP_PORT, LABELS };

struct assembler {
    struct sock_filter *out;
    size_t len;
    size_t at[LABELS];
    struct { unsigned char yes, no; } to[WATCH_PROGRAM_MAX]; /* labels of each jump */
};

static void
emit(struct assembler *a, uint16_t code, uint32_t k)
{
    assert(a->len < WATCH_PROGRAM_MAX);
    a->to[a->len].yes = a->to[a->len].no = NEXT;
    a->out[a->len++] = (struct sock_filter){code, 0, 0, k};
}

static void
jump_if(struct assembler *a, uint16_t test, uint32_t k, enum label yes, enum label no)
{
    emit(a, (uint16_t)(BPF_JMP | BPF_K | test), k);
    a->to[a->len - 1].yes = (unsigned char)yes;
    a->to[a->len - 1].no = (unsigned char)no;
}

static void
label(struct assembler *a, enum label l)
{
    a->at[l] = a->len;
}

static uint8_t
distance(const struct assembler *a, size_t from, enum label to)
{
    if (to == NEXT)
        return 0;
    assert(a->at[to] > from && a->at[to] - from - 1 <= 255);
    return (uint8_t)(a->at[to] - from - 1);
}

static void
resolve(struct assembler *a)
{
    for (size_t i = 0; i < a->len; i++) {
        if (BPF_CLASS(a->out[i].code) != BPF_JMP)
            continue;
        a->out[i].jt = distance(a, i, (enum label)a->to[i].yes);
        a->out[i].jf = distance(a, i, (enum label)a->to[i].no);
    }
}

#define BYTE(at) BPF_LD | BPF_B | BPF_ABS, (at)
#define HALF(at) BPF_LD | BPF_H | BPF_ABS, (at)
#define WORD(at) BPF_LD | BPF_W | BPF_ABS, (at)
#define BYTE_X(at) BPF_LD | BPF_B | BPF_IND, (at) /* behind the IPv4 header, whose length is in X */
#define HALF_X(at) BPF_LD | BPF_H | BPF_IND, (at)

static void
add_v4(struct assembler *a)
{
    label(a, V4);
    emit(a, BYTE(16));
    jump_if(a, BPF_JEQ, 127, DROP, NEXT);
    emit(a, HALF(6));
    jump_if(a, BPF_JSET, 0x1fff, DROP, NEXT); /* not the first fragment */
    emit(a, BPF_LDX | BPF_B | BPF_MSH, 0);
    emit(a, BYTE(9));
    jump_if(a, BPF_JEQ, IPPROTO_TCP, TCP4, NEXT);
    jump_if(a, BPF_JEQ, IPPROTO_UDP, UDP4, NEXT);
    jump_if(a, BPF_JEQ, IPPROTO_ICMP, ICMP4, PASS);
    label(a, ICMP4);
    emit(a, BYTE_X(0));
    jump_if(a, BPF_JEQ, 8, PASS, DROP); /* an echo request; the rest is the kernel's own answer */
}

static void
add_v6(struct assembler *a)
{
    label(a, V6);
    for (uint32_t i = 0; i < 4; i++) {
        emit(a, WORD(24 + 4 * i));
        jump_if(a, BPF_JEQ, i == 3, i == 3 ? DROP : NEXT, NOT_LOOPBACK6);
    }
    label(a, NOT_LOOPBACK6);
    emit(a, BYTE(6));
    jump_if(a, BPF_JEQ, IPPROTO_TCP, TCP6, NEXT);
    jump_if(a, BPF_JEQ, IPPROTO_UDP, UDP6, NEXT);
    jump_if(a, BPF_JEQ, IPPROTO_ICMPV6, ICMP6, PASS);
    label(a, ICMP6);
    emit(a, BYTE(40));
    jump_if(a, BPF_JEQ, 128, PASS, DROP);
}

/* A SYN without ACK, then the port. */
static void
add_ports(struct assembler *a, const uint16_t *tcp, size_t tcp_count, const uint16_t *udp, size_t udp_count)
{
    label(a, TCP4);
    emit(a, BYTE_X(13));
    emit(a, BPF_ALU | BPF_AND | BPF_K, 0x12);
    jump_if(a, BPF_JEQ, 0x02, NEXT, DROP);
    emit(a, HALF_X(2));
    jump_if(a, BPF_JGE, 0, TCP_PORT, TCP_PORT);
    label(a, TCP6);
    emit(a, BYTE(53));
    emit(a, BPF_ALU | BPF_AND | BPF_K, 0x12);
    jump_if(a, BPF_JEQ, 0x02, NEXT, DROP);
    emit(a, HALF(42));
    label(a, TCP_PORT);
    for (size_t i = 0; i < tcp_count; i++)
        jump_if(a, BPF_JEQ, tcp[i], DROP, NEXT);
    jump_if(a, BPF_JGE, 0, PASS, PASS);
    label(a, UDP4);
    emit(a, HALF_X(2));
    jump_if(a, BPF_JGE, 0, UDP_PORT, UDP_PORT);
    label(a, UDP6);
    emit(a, HALF(42));
    label(a, UDP_PORT);
    for (size_t i = 0; i < udp_count; i++)
        jump_if(a, BPF_JEQ, udp[i], DROP, NEXT);
    jump_if(a, BPF_JGE, 0, PASS, PASS);
}

size_t
watch_program(const uint16_t *tcp, size_t tcp_count, const uint16_t *udp, size_t udp_count,
              struct sock_filter out[WATCH_PROGRAM_MAX])
{
    struct assembler a = {.out = out};
    emit(&a, WORD((uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)));
    jump_if(&a, BPF_JEQ, PACKET_HOST, NEXT, DROP);
    emit(&a, BYTE(0));
    emit(&a, BPF_ALU | BPF_AND | BPF_K, 0xf0);
    jump_if(&a, BPF_JEQ, 0x40, V4, NEXT);
    jump_if(&a, BPF_JEQ, 0x60, V6, DROP);
    add_v4(&a);
    add_v6(&a);
    add_ports(&a, tcp, tcp_count, udp, udp_count);
    label(&a, PASS);
    emit(&a, BPF_RET | BPF_K, WATCH_BYTES);
    label(&a, DROP);
    emit(&a, BPF_RET | BPF_K, 0);
    resolve(&a);
    return a.len;
}

int
watch_open(const uint16_t *tcp, size_t tcp_count, const uint16_t *udp, size_t udp_count, struct err *err)
{
    struct sock_filter program[WATCH_PROGRAM_MAX];
    struct sock_fprog whole = {(unsigned short)watch_program(tcp, tcp_count, udp, udp_count, program), program};
    struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1};
    int size = WATCH_RCVBUF;
    /* Protocol 0 until the filter stands: nothing slips in before it. */
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, "watching socket");
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &whole, sizeof whole) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0 ||
        bind(fd, (struct sockaddr *)&all, sizeof all) < 0) {
        err_errno(err, "watching socket");
        close(fd);
        return -1;
    }
    return fd;
}
