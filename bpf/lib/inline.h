// How helpers in headers are declared, for BPF and natively.
#pragma once

#ifdef __bpf__
#define PYRO_INLINE static inline __attribute__((always_inline, unused))
// Verified once per call site but with a stack frame of its own: keeps big helpers off the caller's 512 bytes.
#define PYRO_NOINLINE static __attribute__((noinline, unused))
// Keeps the compiler from dropping a mask or a comparison whose bound it can prove and the verifier cannot: up to Linux
// 6.1 that forgets the range of a number below 64 bits when it is spilled.
#define PYRO_OPAQUE(value) asm volatile("" : "+r"(value))
#else
#define PYRO_INLINE static inline
#define PYRO_NOINLINE static inline
#define PYRO_OPAQUE(value) ((void)(value))
#endif
