// Every .cpp of this folder and of model/update/cpu is compiled once for each instruction set that kernels are written
// for, into a namespace of its own: CMakeLists.txt defines MUSTER_CPU_LEVEL, this header names the namespace MUSTER_ISA
// and says what the code may use. model/cpu_kernels.cpp chooses among them when the program starts.
//
// Code stands between MUSTER_BEGIN_ISA and MUSTER_END_ISA. The compiler's flags are those of any processor, and gcc's
// pragma holds for what is written between the two only, not for what headers bring: of an inline function of the
// standard library the linker keeps any one of the copies, and it must run everywhere.
#pragma once

#define MUSTER_PRAGMA(text) _Pragma(#text)

#if MUSTER_CPU_LEVEL == 0
#define MUSTER_ISA baseline
#define MUSTER_BEGIN_ISA MUSTER_PRAGMA(GCC push_options)
#elif MUSTER_CPU_LEVEL == 1
#define MUSTER_ISA avx2
#define MUSTER_BEGIN_ISA MUSTER_PRAGMA(GCC push_options) MUSTER_PRAGMA(GCC target("avx2,fma,bmi,bmi2"))
#elif MUSTER_CPU_LEVEL == 2
#define MUSTER_ISA avx512
#define MUSTER_BEGIN_ISA          \
  MUSTER_PRAGMA(GCC push_options) \
  MUSTER_PRAGMA(GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,bmi,bmi2"))
#else
#define MUSTER_ISA avx512_bf16
#define MUSTER_BEGIN_ISA          \
  MUSTER_PRAGMA(GCC push_options) \
  MUSTER_PRAGMA(GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,bmi,bmi2"))
#endif
#define MUSTER_END_ISA MUSTER_PRAGMA(GCC pop_options)

#define MUSTER_AVX2 (MUSTER_CPU_LEVEL >= 1)
#define MUSTER_AVX512 (MUSTER_CPU_LEVEL >= 2)
#define MUSTER_BF16_PAIRS (MUSTER_CPU_LEVEL >= 3)

#if defined(__x86_64__)
#include <immintrin.h>
#define MUSTER_NEON 0
#elif defined(__aarch64__)
#include <arm_neon.h>
#define MUSTER_NEON 1
#endif

#define MUSTER_INLINE [[gnu::always_inline]] inline
