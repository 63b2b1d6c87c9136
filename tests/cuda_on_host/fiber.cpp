// Switching stacks, compiled without instrumentation (CMakeLists.txt): a function that returns on another stack than it
// was called on would confuse every sanitizer.
#include "tests/cuda_on_host/fiber.hpp"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#include "tests/cuda_on_host/host_cuda.hpp"

#ifdef FIBERS_UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef FIBERS_UNDER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#error "the fibers of tests/cuda_on_host switch stacks on x86-64 only"
#endif

// Leaves the registers that a call preserves on this stack, and takes them from the other.
extern "C" void cuda_on_host_switch(void** save_stack_pointer, void* load_stack_pointer);
asm(R"(.text
.globl cuda_on_host_switch
.type cuda_on_host_switch,@function
cuda_on_host_switch:
 push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
 mov %rsp,(%rdi)
 mov %rsi,%rsp
 pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
 ret
.size cuda_on_host_switch,.-cuda_on_host_switch
)");

namespace cuda_on_host {
namespace {

constexpr std::size_t stack_bytes = 128 << 10;
constexpr std::size_t page = 4096;
constexpr int saved_registers = 6;

std::byte* map(std::size_t bytes) {
  void* mapping =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) give_up("no memory for the threads of a kernel");
  return static_cast<std::byte*>(mapping);
}

}  // namespace

void give_up(const char* mistake) {
  std::fprintf(stderr, "cuda_on_host: %s\n", mistake);
  std::abort();
}

#ifdef FIBERS_UNDER_TSAN
bool fibers_have_identities() {
  static const bool have = setting("THREADS", 1) != 0;
  return have;
}
void order_before(void* token) {
  if (fibers_have_identities()) __tsan_release(token);
}
void order_after(void* token) {
  if (fibers_have_identities()) __tsan_acquire(token);
}
#else
bool fibers_have_identities() { return false; }
void order_before(void*) {}
void order_after(void*) {}
#endif

Fiber::Fiber() {
#ifdef FIBERS_UNDER_TSAN
  if (fibers_have_identities()) tsan_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(void (*entry)()) : stack_(map(stack_bytes + page)), bottom_(stack_ + page), bytes_(stack_bytes) {
  mprotect(stack_, page, PROT_NONE);
#ifdef FIBERS_UNDER_TSAN
  if (fibers_have_identities()) tsan_ = __tsan_create_fiber(0);
#endif
  auto* top = reinterpret_cast<void**>(stack_ + page + stack_bytes);
  *--top = nullptr;  // where entry would return to; it aligns the stack as a call does
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < saved_registers; ++i) *--top = nullptr;
  stack_pointer_ = top;
}

Fiber::~Fiber() {
  if (stack_ == nullptr) return;
#ifdef FIBERS_UNDER_TSAN
  if (tsan_ != nullptr) __tsan_destroy_fiber(tsan_);
#endif
#ifdef FIBERS_UNDER_ASAN
  __asan_unpoison_memory_region(stack_, stack_bytes + page);
#endif
  munmap(stack_, stack_bytes + page);
}

void Fiber::switch_stacks(Fiber& from, Fiber& to) {
#ifdef FIBERS_UNDER_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#ifdef FIBERS_UNDER_TSAN
  // Fibers are ordered by what the kernel's threads wait for, not by the switch.
  if (to.tsan_ != nullptr) __tsan_switch_to_fiber(to.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
  cuda_on_host_switch(&from.stack_pointer_, to.stack_pointer_);
#ifdef FIBERS_UNDER_ASAN
  // `to` may not be who switched back, but its stack is known already unless it is the thread's own.
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::arrive([[maybe_unused]] Fiber& from) {
#ifdef FIBERS_UNDER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &from.bottom_, &from.bytes_);
#endif
}

void GuardedMemory::unmap() {
  if (mapping_ == nullptr) return;
#ifdef FIBERS_UNDER_ASAN
  __asan_unpoison_memory_region(mapping_, body_);
#endif
  munmap(mapping_, body_ + page);
}

std::byte* GuardedMemory::take(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const std::size_t rounded = (bytes + 15) / 16 * 16, body = (rounded + page - 1) / page * page;
  if (body > body_) {
    unmap();
    mapping_ = map(body + page);
    body_ = body;
    mprotect(mapping_ + body_, page, PROT_NONE);
  }
  std::byte* begin = mapping_ + body_ - rounded;
#ifdef FIBERS_UNDER_ASAN
  __asan_poison_memory_region(mapping_, body_);
  __asan_unpoison_memory_region(begin, bytes);
#endif
  return begin;
}

}  // namespace cuda_on_host
