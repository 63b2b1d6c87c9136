#include "core/fields.hpp"

#include "core/error.hpp"

namespace muster {
namespace {

constexpr std::uint64_t alignment = 8;  // of the largest element

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

Batch::Batch(std::span<const Field> fields, std::span<std::byte> memory) : fields_(fields), memory_(memory) {
  check(memory.size() >= bytes(fields), "a batch has room for its fields");
}

std::uint64_t Batch::bytes(std::span<const Field> fields) {
  std::uint64_t sum = 0;
  for (const Field& field : fields) sum += aligned(field.bytes());
  return sum;
}

bool Batch::has(std::string_view name) const {
  for (const Field& field : fields_)
    if (field.name == name) return true;
  return false;
}

std::span<std::byte> Batch::bytes_of(std::string_view name) const {
  std::uint64_t offset = 0;
  for (const Field& field : fields_) {
    if (field.name == name) return memory_.subspan(offset, field.bytes());
    offset += aligned(field.bytes());
  }
  throw Defect("a batch has no field named " + std::string(name));
}

std::span<std::int32_t> Batch::i32(std::string_view name) const {
  const std::span<std::byte> bytes = bytes_of(name);
  for (const Field& field : fields_)
    check(field.name != name || field.dtype == DType::i32, "a field is read as what it is");
  return {reinterpret_cast<std::int32_t*>(bytes.data()), bytes.size() / sizeof(std::int32_t)};
}

}  // namespace muster
