# Warnings are errors; sanitizers by MUSTER_SANITIZE.
add_library(muster_options INTERFACE)
target_compile_options(muster_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
                       -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror -fno-math-errno>)
# nvcc's own host code is not pedantic. Kernels call constexpr functions of core (Philox, bf16). fmt 9 takes nvcc for
# a compiler without constexpr, and then fails on its own consteval.
target_compile_options(muster_options INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--extended-lambda;-DFMT_USE_CONSTEXPR=1;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter>")
if(MUSTER_SANITIZE)
  # The sanitizers know host code only. gcc's instrumentation makes false positives of the last three warnings.
  target_compile_options(muster_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
                         -fsanitize=${MUSTER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
                         -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds>)
  if(MUSTER_SANITIZE MATCHES "address")
    # AddressSanitizer finds what these would, and they are a fifth of the compiler's time.
    target_compile_options(muster_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=null,object-size,vptr>)
  endif()
  target_compile_options(muster_options INTERFACE
                         "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fno-omit-frame-pointer>")
  target_link_options(muster_options INTERFACE -fsanitize=${MUSTER_SANITIZE})
endif()
