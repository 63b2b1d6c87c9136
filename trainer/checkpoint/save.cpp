#include "trainer/checkpoint/save.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/chrono.h>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <sys/statvfs.h>
#include <tuple>
#include <vector>

#include "comm/agree.hpp"
#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/text.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

// Drops empty slices and puts the others into the order of the file.
std::vector<Slice> in_order(std::span<const Slice> given) {
  std::vector<Slice> slices;
  for (const Slice& slice : given) {
    check(is_tensor_name(slice.name), "a slice without a proper name");
    check(0 <= slice.begin && slice.begin <= slice.end && slice.end <= element_count(slice.shape),
          "a slice outside of its tensor");
    check(slice.values.size() == static_cast<std::uint64_t>(slice.end - slice.begin),
          "a slice with another number of values");
    if (slice.begin < slice.end) slices.push_back(slice);
  }
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return std::tie(a.name, a.begin) < std::tie(b.name, b.begin);
  });
  return slices;
}

// What a rank tells the others of its file.
std::string to_table(std::uint64_t bytes, std::uint64_t hash, const std::vector<Slice>& slices) {
  nlohmann::json table = {bytes, hash, nlohmann::json::array()};
  for (const Slice& slice : slices) table[2].push_back({slice.name, slice.shape, slice.begin, slice.end});
  return table.dump();
}

void add_table(Manifest& manifest, const std::string& text) {
  const nlohmann::json table = nlohmann::json::parse(text);
  const std::size_t rank = manifest.files.size();
  manifest.files.push_back({table[0].get<std::uint64_t>(), table[1].get<std::uint64_t>()});
  for (const nlohmann::json& slice : table[2]) {
    Manifest::Tensor& tensor = manifest.tensors[slice[0].get<std::string>()];
    const auto shape = slice[1].get<std::vector<std::int64_t>>();
    check(tensor.shape.empty() || tensor.shape == shape, "ranks give a tensor different shapes");
    tensor.shape = shape;
    tensor.pieces.push_back({slice[2].get<std::int64_t>(), slice[3].get<std::int64_t>(), rank, 0});
  }
}

std::string time_now() {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
}

// Of the disk on which `folder` lies or is to; the largest number where it does not tell.
std::uint64_t free_room(const std::string& folder) {
  fs::path standing = fs::absolute(folder);
  std::error_code error;
  while (!fs::exists(standing, error) && standing.has_relative_path()) standing = standing.parent_path();
  struct statvfs disk {};
  if (statvfs(standing.c_str(), &disk) != 0)
    throw UserError("cannot examine {}: {}", standing.string(), std::strerror(errno));
  if (disk.f_blocks == 0) return std::numeric_limits<std::uint64_t>::max();
  return std::uint64_t{disk.f_bavail} * disk.f_frsize;
}

void make_folder(const std::string& path) {
  std::error_code error;
  const bool made = fs::create_directories(path, error);
  if (error) throw UserError("cannot create {}: {}: check its permissions", path, error.message());
  if (const std::string parent = fs::path(path).parent_path().string(); made)
    sync_path(parent.empty() ? "." : parent);
}

// A newer attempt removes what this one has begun to write: that is told, and not what the disk says of it.
template <class Fn>
void while_current(const CheckpointRequest& request, Fn&& fn) {
  try {
    fn();
  } catch (const UserError&) {
    request.check_current();
    throw;
  }
}

// Unlike rename, never takes the place of an empty folder either.
bool rename_to_new(const std::string& from, const std::string& to) {
  int status = renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  if (status != 0 && errno == EINVAL) status = std::rename(from.c_str(), to.c_str());  // not on every disk
  if (status != 0 && errno != EEXIST && errno != ENOTEMPTY)
    throw UserError("cannot rename {} to {}: {}", from, to, std::strerror(errno));
  return status == 0;
}

// Refuses to save what is saved already: by this attempt, or a newer one.
void check_unsaved(const CheckpointRequest& request, const std::string& path) {
  std::int64_t attempt = -1;
  try {
    attempt = read_manifest(path).attempt;
  } catch (const UserError&) {
    return;  // nothing is there, or nothing whole
  }
  if (attempt >= request.attempt)
    throw UserError("{} exists already, saved by attempt {} of this run; remove it or choose another run.dir",
                    path, attempt);
}

// Gives the final name. What an earlier attempt left under it is set aside: that one died late, or its
// checkpoint was damaged and this attempt began before it.
void publish(const CheckpointRequest& request, const std::string& partial, const std::string& path) {
  if (!rename_to_new(partial, path)) {
    check_unsaved(request, path);
    const std::string aside = replaced_path(request.folder, request.step, request.attempt);
    if (!rename_to_new(path, aside) || !rename_to_new(partial, path))
      throw UserError("{} and {} are in the way of a checkpoint; remove them", path, aside);
  }
  sync_path(request.folder);
}

// Beats for each part that is done.
std::function<void()> beat_of(Communicator& comm) {
  return [&comm] { comm.pulse().beat(); };
}

// Collective: the folder into which all ranks write, empty.
void begin_folder(Communicator& comm, const CheckpointRequest& request, const std::string& path,
                  const std::string& partial) {
  agree(comm, "preparing a checkpoint", [&] {
    if (comm.rank() != 0) return;
    const Pulse::Work work = comm.pulse().writing("preparing a checkpoint");
    request.check_current();
    check_unsaved(request, path);
    make_folder(request.folder);
    remove_leftovers(request.folder, request.attempt, request.warn, beat_of(comm));
    std::error_code error;
    fs::remove_all(partial, error);  // of a save of this attempt that failed
    make_folder(partial);
  });
}

// Of all ranks, in bytes.
struct Sizes {
  std::uint64_t files = 0;
  std::uint64_t values = 0;  // in them, which are still to be written
};

// Collective.
Sizes sizes_of_all(Communicator& comm, const RankFileWriter& writer, const std::vector<Slice>& slices) {
  std::array<std::int64_t, 2> sizes = {static_cast<std::int64_t>(writer.bytes()), 0};
  for (const Slice& slice : slices) sizes[1] += static_cast<std::int64_t>(slice.values.size_bytes());
  comm.all_reduce(std::as_writable_bytes(std::span(sizes)), ReduceType::i64, ReduceOp::sum,
                  "size of a checkpoint")
      .wait();
  return {static_cast<std::uint64_t>(sizes[0]), static_cast<std::uint64_t>(sizes[1])};
}

// Collective. Throws UserError where there is too little room even when what may go is gone.
void ensure_room(Communicator& comm, const CheckpointRequest& request, const Sizes& sizes) {
  agree(comm, "making room for a checkpoint", [&] {
    if (comm.rank() != 0 || free_room(request.folder) >= sizes.values) return;
    const Pulse::Work work = comm.pulse().writing("making room for a checkpoint", sizes.files);
    request.make_room();
  });
  agree(comm, "checking the room for a checkpoint",
        [&] { check_room(request.folder, sizes.values, request.attempt); });
}

// Collective: the manifest, from what each rank tells of its file, and then the final name.
void complete(Communicator& comm, const CheckpointRequest& request, const std::vector<std::string>& tables,
              std::uint64_t bytes, const std::string& path, const std::string& partial) {
  agree(comm, "completing a checkpoint", [&] {
    if (comm.rank() != 0) return;
    const Pulse::Work work = comm.pulse().writing("completing a checkpoint", bytes);
    Manifest manifest;
    manifest.step = request.step;
    manifest.attempt = request.attempt;
    manifest.saved = time_now();
    manifest.state = request.state;
    for (const std::string& table : tables) add_table(manifest, table);
    const std::string problem = arrange_pieces(manifest);
    check(problem.empty(), problem.c_str());
    while_current(request,
                  [&] { write_text_atomically(partial + "/" + Manifest::file_name, to_text(manifest)); });
    request.check_current();
    publish(request, partial, path);
  });
}

}  // namespace

void check_room(const std::string& folder, std::uint64_t bytes, std::int64_t attempt, std::uint64_t freed) {
  const std::uint64_t room = free_room(folder);
  if (room >= bytes || room + freed >= bytes) return;
  const std::string leftovers = describe_leftovers(folder, attempt);
  const char* const because =
      freed > 0 ? "once what earlier attempts left is removed" : "beside what earlier attempts left";
  throw UserError(
      "cannot save a checkpoint in {}: it takes another {} and {} are free{}; free space on that disk or "
      "lower checkpoint.keep",
      folder, human_bytes(bytes), human_bytes(room + freed),
      leftovers.empty() ? "" : fmt::format(" {}: {}", because, leftovers));
}

SavedCheckpoint save_checkpoint(Communicator& comm, const CheckpointRequest& request,
                                std::span<const Slice> mine) {
  const std::string path = checkpoint_path(request.folder, request.step);
  const std::string partial = partial_path(request.folder, request.step, request.attempt);
  try {
    begin_folder(comm, request, path, partial);
    std::vector<Slice> slices;
    std::optional<RankFileWriter> writer;
    agree(comm, "laying out a checkpoint", [&] {
      const Pulse::Work work = comm.pulse().writing("laying out a checkpoint");
      slices = in_order(mine);
      while_current(request, [&] {
        writer.emplace(partial + "/" + rank_file_name(static_cast<std::size_t>(comm.rank())), slices);
      });
    });
    const Sizes sizes = sizes_of_all(comm, *writer, slices);
    ensure_room(comm, request, sizes);

    std::uint64_t hash = 0;
    agree(comm, "writing a checkpoint", [&] {
      const Pulse::Work work = comm.pulse().writing("writing a checkpoint", sizes.files);
      while_current(request, [&] { hash = writer->write(beat_of(comm)); });
    });
    const auto tables =
        gather_strings(comm, to_table(writer->bytes(), hash, slices), "what a checkpoint holds");
    complete(comm, request, tables, sizes.files, path, partial);
    return {path, sizes.files};
  } catch (...) {
    const Pulse::Work work = comm.pulse().writing("removing an unfinished checkpoint");
    std::error_code ignored;  // the first failure is the one to tell
    if (comm.rank() == 0) fs::remove_all(partial, ignored);
    throw;
  }
}

}  // namespace muster
