// What the sanitizers are told of the stand-in's threads, and of accesses that are not instrumented.
#include <cstdlib>
#include <execinfo.h>
#include <string>

#include "tests/cuda_on_host/streams.hpp"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void AnnotateIgnoreSyncBegin(const char*, int);
void AnnotateIgnoreSyncEnd(const char*, int);
void __tsan_func_entry(void*);
void __tsan_func_exit();
void __tsan_read_range(const void*, unsigned long);
void __tsan_write_range(void*, unsigned long);
}
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_host {

#ifdef __SANITIZE_THREAD__

namespace {

thread_local int hidden_depth = 0;

// Orderings are seen again while one lives.
class Shown {
 public:
  Shown() {
    if (hidden_) AnnotateIgnoreSyncEnd("", 0);
  }
  ~Shown() {
    if (hidden_) AnnotateIgnoreSyncBegin("", 0);
  }
  Shown(const Shown&) = delete;
  Shown& operator=(const Shown&) = delete;

 private:
  const bool hidden_ = hidden_depth > 0;
};

}  // namespace

Hidden::Hidden() {
  if (hidden_depth++ > 0) return;
  AnnotateIgnoreReadsBegin("", 0);
  AnnotateIgnoreWritesBegin("", 0);
  AnnotateIgnoreSyncBegin("", 0);
}

Hidden::~Hidden() {
  if (--hidden_depth > 0) return;
  AnnotateIgnoreSyncEnd("", 0);
  AnnotateIgnoreWritesEnd("", 0);
  AnnotateIgnoreReadsEnd("", 0);
}

void release(void* token) {
  const Shown shown;
  __tsan_release(token);
}

void acquire(void* token) {
  const Shown shown;
  __tsan_acquire(token);
}

void reads(const void* data, std::size_t bytes) {
  if (bytes > 0) __tsan_read_range(data, bytes);
}

void writes(void* data, std::size_t bytes) {
  if (bytes > 0) __tsan_write_range(data, bytes);
}

CallSite CallSite::here() {
  const Hidden hidden;
  CallSite site;
  std::array<void*, 2 + std::tuple_size_v<decltype(frames_)>> stack{};
  const int depth = backtrace(stack.data(), static_cast<int>(stack.size()));
  // The first two are this function and the stand-in's that called it.
  for (int i = 2; i < depth; ++i)
    site.frames_[static_cast<std::size_t>(site.count_++)] = stack[static_cast<std::size_t>(i)];
  return site;
}

// Not instrumented: their own entry and exit would come between.
__attribute__((no_sanitize("thread"))) void CallSite::enter() const {
  for (int i = count_; i-- > 0;) __tsan_func_entry(frames_[static_cast<std::size_t>(i)]);
}

__attribute__((no_sanitize("thread"))) void CallSite::leave() const {
  for (int i = 0; i < count_; ++i) __tsan_func_exit();
}

#else

CallSite CallSite::here() { return {}; }
void CallSite::enter() const {}
void CallSite::leave() const {}

#endif

#ifdef __SANITIZE_ADDRESS__

namespace {

// Touches the first poisoned byte, which ends the program with a report.
void check_range(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  const void* poisoned = __asan_region_is_poisoned(const_cast<void*>(data), bytes);
  if (poisoned != nullptr) static_cast<void>(*static_cast<const volatile char*>(poisoned));
}

}  // namespace

void reads(const void* data, std::size_t bytes) { check_range(data, bytes); }
void writes(void* data, std::size_t bytes) { check_range(data, bytes); }

#endif

long setting(const char* name, long otherwise) {
  const char* text = std::getenv((std::string("CUDA_ON_HOST_") + name).c_str());
  return text == nullptr ? otherwise : std::strtol(text, nullptr, 10);
}

}  // namespace cuda_on_host
