#include "data/output_folder.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

constexpr const char* claim_name = "prepare.partial";

// What prepare writes before a dataset is whole.
bool is_ours(const fs::path& file) {
  const std::string name = file.filename().string(), extension = file.extension().string();
  return extension == ".partial" || name.starts_with("dataset.json.partial-") ||
         (extension == ".h5" && (name.starts_with("train-") || name.starts_with("validation-")));
}

// Whether `descriptor` is what stands under the name: another prepare may have ended meanwhile.
bool is_file(int descriptor, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(descriptor, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path, const std::function<void(const std::string&)>& tell)
    : path_(path) {
  std::error_code error;
  made_ = !fs::exists(path_, error);
  if (!made_ && !fs::is_directory(path_, error))
    throw UserError("{} is a file: name a new or empty folder for the dataset", path_);
  const fs::path claim_path = fs::path(path_) / claim_name;
  if (!made_ && !fs::is_empty(path_, error) && !fs::exists(claim_path, error))
    throw UserError("{} is not empty: remove it or name a new folder for the dataset", path_);
  if (made_) fs::create_directories(path_, error);
  if (error)
    throw UserError("cannot make the folder {}: {}: check its permissions or name another", path_,
                    error.message());
  bool was_there = false;
  claim(was_there);
  std::vector<fs::path> left;
  bool foreign = false;
  for (const auto& entry : fs::directory_iterator(path_, error)) {
    if (entry.path() == claim_path) continue;
    foreign = foreign || !is_ours(entry.path()) || !was_there;
    left.push_back(entry.path());
  }
  if (foreign) {
    if (!was_there) fs::remove(claim_path, error);
    throw UserError("{} is not empty: remove it or name a new folder for the dataset", path_);
  }
  for (const fs::path& file : left) fs::remove(file, error);
  if (was_there)
    tell(fmt::format("{} was left by a muster prepare that did not end: removed its {} file{}", path_,
                     left.size() + 1, left.empty() ? "" : "s"));
}

// Two that start at the same moment both find the folder free; the lock is one's.
void OutputFolder::claim(bool& was_there) {
  const std::string path = (fs::path(path_) / claim_name).string();
  int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  was_there = descriptor < 0 && errno == EEXIST;
  if (was_there) descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0 && (!was_there || errno != ENOENT))
    throw UserError("cannot write to the folder {}: {}: check its permissions and free space", path_,
                    std::strerror(errno));
  if (descriptor >= 0) claim_ = File::adopt(descriptor, path);
  const bool locked = descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  if (locked && is_file(descriptor, path)) return;
  // A file system without locks: whoever made the file has the folder.
  const bool no_locks = descriptor >= 0 && !locked && errno != EWOULDBLOCK && errno != EINTR;
  if (no_locks && !was_there) return;
  if (no_locks)
    throw UserError(
        "{} is written to by another muster prepare, or was left by one that did not end: remove it if "
        "none is running, or name a new folder",
        path_);
  throw UserError("another muster prepare writes to {}: name a new folder for the dataset", path_);
}

OutputFolder::~OutputFolder() {
  if (kept_) return;
  std::error_code ignored;  // the failure that brought us here is the one to tell
  for (const auto& entry : fs::directory_iterator(path_, ignored))
    if (is_ours(entry.path())) fs::remove(entry.path(), ignored);
  if (made_) fs::remove(path_, ignored);  // only if it is empty
}

void OutputFolder::keep() {
  kept_ = true;
  std::error_code ignored;
  fs::remove(fs::path(path_) / claim_name, ignored);
}

}  // namespace muster
