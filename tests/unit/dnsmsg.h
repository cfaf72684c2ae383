/* Builds DNS messages for tests, right and wrong ones. */
#ifndef TESTS_UNIT_DNSMSG_H
#define TESTS_UNIT_DNSMSG_H

#include <stdint.h>
#include <string.h>

struct dnsmsg {
    unsigned char data[65536];
    size_t len;
};

static inline void
dns_u8(struct dnsmsg *m, unsigned v)
{
    m->data[m->len++] = (unsigned char)v;
}

static inline void
dns_u16(struct dnsmsg *m, unsigned v)
{
    dns_u8(m, v >> 8);
    dns_u8(m, v & 0xff);
}

static inline void
dns_u32(struct dnsmsg *m, uint32_t v)
{
    dns_u16(m, v >> 16);
    dns_u16(m, v & 0xffff);
}

static inline void
dns_name(struct dnsmsg *m, const char *name)
{
    while (*name) {
        size_t n = strcspn(name, ".");
        dns_u8(m, (unsigned)n);
        memcpy(m->data + m->len, name, n);
        m->len += n;
        name += n + (name[n] == '.');
    }
    dns_u8(m, 0);
}

static inline void
dns_counts(struct dnsmsg *m, unsigned answers, unsigned authority, unsigned additional)
{
    size_t len = m->len;
    m->len = 6;
    dns_u16(m, answers);
    dns_u16(m, authority);
    dns_u16(m, additional);
    m->len = len;
}

/* Header and question; counts are set later. */
static inline void
dns_begin(struct dnsmsg *m, unsigned id, unsigned flags, const char *name, unsigned type)
{
    m->len = 0;
    dns_u16(m, id);
    dns_u16(m, flags);
    dns_u16(m, 1);
    dns_u16(m, 0);
    dns_u32(m, 0);
    dns_name(m, name);
    dns_u16(m, type);
    dns_u16(m, 1);
}

static inline void
dns_record(struct dnsmsg *m, const char *name, unsigned type, uint32_t ttl, unsigned data_len)
{
    if (name)
        dns_name(m, name);
    else
        dns_u16(m, 0xc00c); /* the question's */
    dns_u16(m, type);
    dns_u16(m, 1);
    dns_u32(m, ttl);
    dns_u16(m, data_len);
}

static inline void
dns_a(struct dnsmsg *m, const char *name, uint32_t ttl, uint32_t address)
{
    dns_record(m, name, 1, ttl, 4);
    dns_u32(m, address);
}

static inline void
dns_aaaa(struct dnsmsg *m, const char *name, uint32_t ttl, unsigned last)
{
    dns_record(m, name, 28, ttl, 16);
    dns_u32(m, 0x20010db8);
    dns_u32(m, 0);
    dns_u32(m, 0);
    dns_u32(m, last);
}

static inline void
dns_cname(struct dnsmsg *m, const char *name, uint32_t ttl, const char *target)
{
    dns_record(m, name, 5, ttl, 0);
    size_t at = m->len;
    dns_name(m, target);
    m->data[at - 2] = (unsigned char)((m->len - at) >> 8);
    m->data[at - 1] = (unsigned char)(m->len - at);
}

static inline void
dns_soa(struct dnsmsg *m, const char *zone, uint32_t ttl, uint32_t minimum)
{
    dns_record(m, zone, 6, ttl, 22);
    dns_u8(m, 0);
    dns_u8(m, 0);
    for (int i = 0; i < 4; i++)
        dns_u32(m, 1);
    dns_u32(m, minimum);
}

#endif
