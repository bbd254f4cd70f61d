// How helpers in headers are declared, for BPF and natively.
#pragma once

#ifdef __bpf__
#define PYRO_INLINE static inline __attribute__((always_inline, unused))
// Verified once per call site but with a stack frame of its own: keeps big helpers off the caller's 512 bytes.
#define PYRO_NOINLINE static __attribute__((noinline, unused))
#else
#define PYRO_INLINE static inline
#define PYRO_NOINLINE static inline
#endif
