// What the tests of the data wing share: a folder of their own, messages of errors, and small datasets.
#pragma once

#include <csignal>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"
#include "core/file.hpp"
#include "data/dataset.hpp"
#include "data/prepare.hpp"

namespace muster {

class Scratch : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string write(const std::string& name, const std::string& contents) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    File::create(path(name)).write(contents);
    return path(name);
  }
  // Documents as JSON lines.
  std::string write_lines(const std::string& name, const std::vector<std::string>& documents) const {
    std::string lines;
    for (const std::string& document : documents) lines += "{\"text\": \"" + document + "\"}\n";
    return write(name, lines);
  }
  // A dataset without validation, of documents of the given lengths (letters a, b, ... by document).
  std::string make_dataset(const std::string& name, const std::vector<std::size_t>& lengths,
                           std::uint64_t shard_tokens = 1 << 20, double validation = 0) const {
    std::vector<std::string> documents;
    for (std::size_t i = 0; i < lengths.size(); ++i)
      documents.emplace_back(lengths[i], static_cast<char>('a' + i % 26));
    PrepareOptions options;
    options.validation = validation;
    options.shard_tokens = shard_tokens;
    prepare({write_lines(name + ".jsonl", documents)}, path(name), options);
    return path(name);
  }

  std::string folder_ = ::testing::TempDir() + "muster-data-" + std::to_string(getpid());
};

// The message of the UserError that `body` throws.
template <class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

// Whether a message is one line that holds all the parts.
inline ::testing::AssertionResult tells(const std::string& message,
                                        std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "no '" << part << "' in: " << message;
  if (message.find('\n') != std::string::npos)
    return ::testing::AssertionFailure() << "two lines: " << message;
  return ::testing::AssertionSuccess();
}

// A disk that is full after so many bytes of a file, without a disk of its own: files may not grow further.
class SmallDisk {
 public:
  explicit SmallDisk(std::uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace muster
