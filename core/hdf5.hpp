// HDF5 files of one-dimensional datasets: the only place that calls the HDF5 library.
//
// Every failure is a UserError that names the file and the dataset or attribute. The library is serialised by
// one lock here, since not every build of it is thread-safe. Files are never locked (many network file
// systems refuse that): a file is written under a temporary name, closed, and renamed by its writer.
//
// A file is read as bytes of its own alone: links, external storage, virtual datasets, and filters by plugin, which
// reach other files or code of the machine, are refused.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/dtype.hpp"

namespace muster {

// An identifier of the HDF5 library (its hid_t), closed when it goes out of scope.
class H5Handle {
 public:
  using Closer = int (*)(std::int64_t);

  H5Handle() = default;
  H5Handle(std::int64_t id, Closer closer) : id_(id), closer_(closer) {}
  H5Handle(H5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  H5Handle& operator=(H5Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(closer_, other.closer_);
    return *this;
  }
  ~H5Handle();

  std::int64_t id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  // Closes now; negative on failure.
  int close();

 private:
  std::int64_t id_ = -1;
  Closer closer_ = nullptr;
};

namespace detail {
template <class T>
constexpr DType h5_type() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return DType::u16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return DType::u32;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
}
}  // namespace detail

// A one-dimensional dataset of f32, f64, u8, u16, u32, i32 or i64. Must not outlive its file.
class H5Dataset {
 public:
  std::uint64_t length() const { return length_; }
  DType type() const { return type_; }
  // Where its elements lie in the file, in this machine's byte order, if they lie there in one plain piece;
  // nothing if it is chunked, filtered, or of another byte order.
  std::optional<std::uint64_t> file_offset() const { return file_offset_; }

  // Elements [offset, offset + values.size()); converted if the stored type differs from T.
  template <class T>
  void read(std::uint64_t offset, std::span<T> values) const {
    read_as(detail::h5_type<T>(), offset, values.size(), values.data());
  }
  template <class T>
  void write(std::uint64_t offset, std::span<const T> values) {
    write_as(detail::h5_type<T>(), offset, values.size(), values.data());
  }

 private:
  friend class H5File;
  void read_as(DType type, std::uint64_t offset, std::uint64_t count, void* values) const;
  void write_as(DType type, std::uint64_t offset, std::uint64_t count, const void* values);

  H5Handle handle_;
  std::string label_;  // file and dataset, for messages
  std::uint64_t length_ = 0;
  DType type_ = DType::f32;
  std::optional<std::uint64_t> file_offset_;
};

class H5File {
 public:
  static H5File open_to_read(const std::string& path);
  // Creates or truncates. The bytes depend on what is written only (no times are stored).
  static H5File create(const std::string& path);

  H5File() = default;

  const std::string& path() const { return path_; }

  // Names of all datasets at and below `group`, from the root ("adam.m/wte.weight"), sorted.
  std::vector<std::string> datasets(const std::string& group = "/") const;
  bool contains(const std::string& name) const;
  H5Dataset dataset(const std::string& name) const;
  // Contiguous, its room in the file taken at once; groups of the name are made as needed.
  H5Dataset create_dataset(const std::string& name, DType type, std::uint64_t length);

  // Attributes of `object`, a dataset or group; "/" is the file itself.
  void set_attribute(const std::string& object, const std::string& name, std::int64_t value);
  void set_attribute(const std::string& object, const std::string& name, std::string_view value);
  void set_attribute(const std::string& object, const std::string& name,
                     std::span<const std::int64_t> values);
  std::int64_t integer_attribute(const std::string& object, const std::string& name) const;
  std::string string_attribute(const std::string& object, const std::string& name) const;

  // Flushes and closes. A writer must call it: only then is the file known to be whole (then fsync it by
  // name). Without it a destroyed H5File closes silently.
  void close();

 private:
  H5Handle attribute(const std::string& object, const std::string& name) const;

  H5Handle handle_;
  std::string path_;
};

}  // namespace muster
