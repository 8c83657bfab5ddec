/* Raw system calls, per architecture. */
#ifndef SYS_H
#define SYS_H

#include <sys/syscall.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
INLINE long sys6(long n, long a, long b, long c, long d, long e, long f) {
	long r;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
/* The call n with five arguments, which makes a child on a stack of its own; the child calls fn(arg) there
 * and never returns. */
INLINE long sys_spawn(long n, long a, long b, long c, long d, long e, void (*fn)(void *), void *arg) {
	long r;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	register void *r12 __asm__("r12") = (void *)fn, *r13 __asm__("r13") = arg;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r13, %%rdi\n\t"
			 "call *%%r12\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
			 : "rcx", "r11", "memory");
	return r;
}
#elif defined(__aarch64__)
INLINE long sys6(long n, long a, long b, long c, long d, long e, long f) {
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
			 x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
INLINE long sys_spawn(long n, long a, long b, long c, long d, long e, void (*fn)(void *), void *arg) {
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
			 x3 __asm__("x3") = d, x4 __asm__("x4") = e;
	register void *x9 __asm__("x9") = (void *)fn, *x10 __asm__("x10") = arg;
	__asm__ volatile("svc 0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x30, xzr\n\t"
			 "mov x0, x10\n\t"
			 "blr x9\n\t"
			 "brk 1\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9), "r"(x10)
			 : "memory");
	return x0;
}
#else
#error "jail-init knows amd64 and arm64"
#endif

#define S(n, ...) S_(n, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define S_(n, a, b, c, d, e, f, ...) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#endif
