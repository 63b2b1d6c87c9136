// Files by descriptor, and the writes that must not be torn: a file appears whole under its name or not at
// all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace muster {

class File {
 public:
  static File open_to_read(const std::string& path);
  // Creates or truncates.
  static File create(const std::string& path);
  // Writes go to the end of an existing file.
  static File open_to_append(const std::string& path);
  // An existing file, to be written in place.
  static File open_to_update(const std::string& path);
  // Of a descriptor that is open, and is closed with it.
  static File adopt(int descriptor, const std::string& path) { return {descriptor, path}; }

  File() = default;
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }
  std::uint64_t size() const;
  // Reads up to bytes.size() bytes at `offset`; 0 at the end of the file.
  std::size_t read_some(std::span<std::byte> bytes, std::uint64_t offset) const;
  // Fills `bytes` or throws UserError naming the file (cut short, unreadable).
  void read_exactly(std::span<std::byte> bytes, std::uint64_t offset) const;
  // Appends; throws UserError naming the file and the remedy when the disk is full.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void write_at(std::span<const std::byte> bytes, std::uint64_t offset);
  void sync();

  // Locks the whole file until it is closed here: the system does that when the process ends, however it ends. False where
  // another holds it, or where the file system has no locks.
  bool lock();
  // Whether another holds a lock of it, in whichever container of this host; nothing where the file system does not tell.
  std::optional<bool> is_locked() const;

 private:
  File(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  std::string path_;
};

std::string read_text(const std::string& path);
// Writes to a file beside it, fsyncs, renames to `path`, fsyncs the folder. A failure leaves no file behind; what a kill
// left, the next write to `path` on this host, or in this container, removes.
void write_text_atomically(const std::string& path, std::string_view text);
// fsync of a file or folder by name.
void sync_path(const std::string& path);

}  // namespace muster
