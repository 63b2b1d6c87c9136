// What the memory-bound kernels share: loops over vectors and a rest, and the choice of a type.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/dtype.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/ops/cpu/vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

// The lanes of a vector that are in use: all, known to the compiler, or the first few. An element's bits are
// the same with both.
struct WholeVector {};
struct PartOfVector {
  std::int64_t count;
};

template <class T>
MUSTER_INLINE Floats load(const T* from, WholeVector) {
  return load(from);
}
template <class T>
MUSTER_INLINE Floats load(const T* from, PartOfVector part) {
  return load_part(from, part.count);
}
template <class T>
MUSTER_INLINE void store(T* to, Floats value, WholeVector) {
  store(to, value);
}
template <class T>
MUSTER_INLINE void store(T* to, Floats value, PartOfVector part) {
  store_part(to, value, part.count);
}

// Zero in the lanes that are not in use.
MUSTER_INLINE Floats only(Floats value, WholeVector) { return value; }
MUSTER_INLINE Floats only(Floats value, PartOfVector part) {
  return select(lane_numbers() < static_cast<std::int32_t>(part.count), value, Floats{});
}

// Calls body(i, part) for i = begin, begin + lanes, ... below end.
template <class Body>
MUSTER_INLINE void for_lanes(std::int64_t begin, std::int64_t end, Body&& body) {
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(i, WholeVector{});
  if (i < end) body(i, PartOfVector{end - i});
}

// The same over [0, count) on all threads.
template <class Body>
void for_lanes_parallel(std::int64_t count, Body&& body) {
  parallel_ranges(count, 16384, [&](std::int64_t begin, std::int64_t end) { for_lanes(begin, end, body); });
}

// Rows that make a task: about 16,384 elements.
inline std::int64_t rows_of_task(std::int64_t columns) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, columns));
}

// Calls body(float{}) or body(bf16{}).
template <class Body>
void with_type(DType type, Body&& body) {
  if (type == DType::f32) return body(float{});
  if (type == DType::bf16) return body(bf16{});
  throw Defect("kernels of the CPU compute in f32 or bf16");
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
