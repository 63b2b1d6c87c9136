// What the targets share. A target is one file that defines read(): it hands bytes from outside to a reader, which must
// either read them or refuse them by a UserError of one line. Anything else is a finding: another exception, a signal, a
// report of a sanitizer, ten seconds, a gibibyte.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unistd.h>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"

namespace muster::fuzz {

void read(std::string_view bytes);

// Lets the refusal through, where more is to be tried after it.
template <class Body>
void read_or_refuse(Body&& body) {
  try {
    body();
  } catch (const UserError& error) {
    const std::string_view message = error.what();
    check(!message.empty() && message.size() < 4096, "a refusal of no words, or of too many");
    check(without_controls(message) == message, "a refusal that is not one line of text");
  }
}

// Of this process. tests/fuzz/run puts it into memory and removes it.
inline const std::string& folder() {
  static const std::string made = [] {
    const auto path = std::filesystem::temp_directory_path() / ("muster-fuzz-" + std::to_string(getpid()));
    std::filesystem::create_directories(path);
    return path.string();
  }();
  return made;
}

inline std::string write(const std::string& name, std::string_view bytes) {
  const std::string path = folder() + "/" + name;
  File::create(path).write(bytes);
  return path;
}

// What the text would be if its hash were right: else nothing that is changed in it would be looked at.
inline std::string sealed(std::string_view body) {
  return fmt::format("{},\n\"xxh3\": \"{}\"\n}}\n", body, hex(hash_bytes(std::as_bytes(std::span(body)))));
}

}  // namespace muster::fuzz
