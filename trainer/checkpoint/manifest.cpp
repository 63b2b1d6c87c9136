#include "trainer/checkpoint/manifest.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"
#include "core/json_text.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

using Json = nlohmann::json;

constexpr std::uintmax_t most_bytes = 1u << 30;
constexpr std::int64_t most_elements = std::int64_t{1} << 56;

void refuse_deep(std::string_view text) {
  if (nests_deeper_than(text, most_json_depth)) throw UserError("it is nested too deeply");
}

// The state as it was given, its keys in their order. A tree that keeps their order looks through all keys of an object
// for each new one, so the tensors, of which there are many, stay out of it.
std::string state_of(std::string_view manifest) {
  using Ordered = nlohmann::ordered_json;
  const auto belongs = [](int depth, Ordered::parse_event_t event, const Ordered& key) {
    return event != Ordered::parse_event_t::key || depth != 1 || key == "state";
  };
  return Ordered::parse(manifest, belongs).at("state").dump();
}

const Json& member(const Json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) throw UserError("it has no \"{}\"", key);
  return object[key];
}

std::int64_t integer(const Json& value, const char* what) {
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX}
                                               : value.is_number_integer();
  if (!fits || value.get<std::int64_t>() < 0)
    throw UserError("\"{}\" is not a whole number of at least 0", what);
  return value.get<std::int64_t>();
}

std::string text(const Json& value, const char* what) {
  if (!value.is_string()) throw UserError("\"{}\" is not text", what);
  return value.get<std::string>();
}

const Json& list(const Json& value, const char* what) {
  if (!value.is_array()) throw UserError("\"{}\" is not a list", what);
  return value;
}

std::uint64_t hash_of_text(const std::string& digits) {
  const auto hash = from_hex(digits);
  if (!hash) throw UserError("\"xxh3\" is not 16 hexadecimal digits");
  return *hash;
}

Manifest::Tensor parse_tensor(const Json& json, std::size_t files) {
  Manifest::Tensor tensor;
  for (const Json& extent : list(member(json, "shape"), "shape"))
    tensor.shape.push_back(integer(extent, "shape"));
  for (const Json& entry : list(member(json, "pieces"), "pieces")) {
    if (list(entry, "pieces").size() != 3) throw UserError("\"pieces\" is not a list of three numbers each");
    const std::int64_t file = integer(entry[2], "pieces");
    if (static_cast<std::uint64_t>(file) >= files) throw UserError("\"pieces\" name a file that it lacks");
    tensor.pieces.push_back(
        {integer(entry[0], "pieces"), integer(entry[1], "pieces"), static_cast<std::size_t>(file), 0});
  }
  return tensor;
}

Manifest parse_manifest(std::string_view whole) {
  const Seal seal = seal_of(whole);
  if (seal == Seal::missing) throw UserError("it is cut short");
  if (seal == Seal::broken) throw UserError("its content does not match its checksum");
  refuse_deep(whole);
  const Json json = Json::parse(whole);
  if (const std::int64_t version = integer(member(json, "format_version"), "format_version");
      version != Manifest::format_version)
    throw UserError("its format version is {} and this program reads {} (use the muster that wrote it)",
                    version, Manifest::format_version);
  Manifest manifest;
  manifest.step = integer(member(json, "step"), "step");
  manifest.attempt = integer(member(json, "attempt"), "attempt");
  if (manifest.attempt > Attempt::most) throw UserError("\"attempt\" is no number of an attempt");
  manifest.saved = text(member(json, "saved"), "saved");
  for (const Json& entry : list(member(json, "files"), "files")) {
    if (text(member(entry, "name"), "name") != rank_file_name(manifest.files.size()))
      throw UserError("\"files\" does not list the ranks' files in order");
    manifest.files.push_back({static_cast<std::uint64_t>(integer(member(entry, "bytes"), "bytes")),
                              hash_of_text(text(member(entry, "xxh3"), "xxh3"))});
  }
  const Json& tensors = member(json, "tensors");
  if (!tensors.is_object()) throw UserError("\"tensors\" is not an object");
  for (const auto& [name, value] : tensors.items()) {
    if (!is_tensor_name(name)) throw UserError("a tensor of \"tensors\" has no proper name");
    manifest.tensors[name] = parse_tensor(value, manifest.files.size());
  }
  if (const std::string problem = arrange_pieces(manifest); !problem.empty()) throw UserError(problem);
  member(json, "state");
  manifest.state = state_of(whole);
  return manifest;
}

}  // namespace

std::string rank_file_name(std::size_t rank) { return fmt::format("rank-{:05}.h5", rank); }

bool is_tensor_name(const std::string& name) {
  return !name.empty() && name.front() != '/' && name.back() != '/' && name.find("//") == std::string::npos &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

std::int64_t element_count(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent <= 0 || extent > most_elements / count)
      throw UserError("[{}] is not the shape of a tensor", fmt::join(shape, ", "));
    count *= extent;
  }
  return count;
}

std::string arrange_pieces(Manifest& manifest) {
  for (auto& [name, tensor] : manifest.tensors) {
    std::sort(tensor.pieces.begin(), tensor.pieces.end(),
              [](const auto& a, const auto& b) { return a.begin < b.begin; });
    std::map<std::size_t, std::uint64_t> used;  // of each file's dataset
    std::int64_t covered = 0;
    for (Manifest::Piece& piece : tensor.pieces) {
      if (piece.begin != covered || piece.end <= piece.begin)
        return fmt::format("the pieces of {} leave a gap or overlap at element {}", name, covered);
      covered = piece.end;
      piece.position = used[piece.file];
      used[piece.file] += static_cast<std::uint64_t>(piece.end - piece.begin);
    }
    if (const std::int64_t count = element_count(tensor.shape); covered != count)
      return fmt::format("the pieces of {} cover {} of its {} elements", name, covered, count);
  }
  return {};
}

std::string to_text(const Manifest& manifest) {
  check(Json::accept(manifest.state), "the state given to a checkpoint is not JSON");
  // One tensor a line: a person reads it, and it stays small.
  std::string out = fmt::format(
      "{{\n\"format_version\": {},\n\"step\": {},\n\"attempt\": {},\n\"saved\": \"{}\",\n\"files\": [",
      Manifest::format_version, manifest.step, manifest.attempt, manifest.saved);
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank)
    out += fmt::format("{}\n  {{\"name\": \"{}\", \"bytes\": {}, \"xxh3\": \"{}\"}}", rank == 0 ? "" : ",",
                       rank_file_name(rank), manifest.files[rank].bytes, hex(manifest.files[rank].hash));
  out += "\n],\n\"tensors\": {";
  const char* separator = "";
  for (const auto& [name, tensor] : manifest.tensors) {
    std::vector<std::string> pieces;
    for (const Manifest::Piece& piece : tensor.pieces)
      pieces.push_back(fmt::format("[{}, {}, {}]", piece.begin, piece.end, piece.file));
    out += fmt::format("{}\n  {}: {{\"shape\": [{}], \"pieces\": [{}]}}", separator, Json(name).dump(),
                       fmt::join(tensor.shape, ", "), fmt::join(pieces, ", "));
    separator = ",";
  }
  refuse_deep(manifest.state);
  out += fmt::format("\n}},\n\"state\": {}", nlohmann::ordered_json::parse(manifest.state).dump(1));
  return sealed(out);
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + Manifest::file_name;
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(folder, error);
  if (there.type() == std::filesystem::file_type::not_found)
    throw UserError("there is no {}: muster checkpoint list RUN shows those that are", folder);
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    throw UserError("{} is missing: the checkpoint was never finished; remove its folder", path);
  if (!std::filesystem::is_regular_file(status))
    throw UserError("cannot read {}: {}: check its permissions, and the disk", path,
                    error ? error.message() : "it is no file");
  const auto refuse = [&](const char* what) {
    return UserError("cannot use {}: {}; restore it from a copy or remove its folder", path, what);
  };
  if (File::open_to_read(path).size() > most_bytes) throw refuse("it is too large");
  const std::string whole = read_text(path);
  try {
    return parse_manifest(whole);
  } catch (const UserError& failure) {
    throw refuse(failure.what());
  } catch (const Json::exception&) {
    throw refuse("it is not JSON");
  }
}

}  // namespace muster
