// Damage of every kind is recognised, told in one line, and the checkpoint before it is used.
#include "tests/trainer/checkpoint/samples.hpp"

namespace muster {
namespace {

using namespace checkpoint_samples;

// Two checkpoints of two ranks each; tests damage the second.
class CheckpointDamage : public testing::Test {
 protected:
  CheckpointDamage() {
    save(folder_.path(), 2, 10);
    save(folder_.path(), 2, 20);
  }

  const std::string& folder() const { return folder_.path(); }
  std::string newest() const { return checkpoint_path(folder(), 20); }
  std::string manifest() const { return newest() + "/manifest.json"; }

  // The newest is passed over with one warning that names it, and the one before is used.
  void expect_fallback(Trust trust) const {
    std::vector<std::string> warnings;
    const auto step =
        newest_complete(folder(), trust, [&](const std::string& line) { warnings.push_back(line); });
    ASSERT_EQ(step, 10);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find(newest()), std::string::npos) << warnings[0];
    EXPECT_EQ(warnings[0].find('\n'), std::string::npos) << warnings[0];
  }

  // Every way of opening it is refused with a UserError.
  void expect_refused() const {
    message_of([&] { Checkpoint::open(newest(), Trust::full); });
    EXPECT_FALSE(verify_checkpoint(newest()).empty());
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(CheckpointDamage, undamaged_the_newest_is_found_without_a_warning) {
  const auto step = newest_complete(folder(), Trust::full, [](const std::string& line) { FAIL() << line; });
  EXPECT_EQ(step, 20);
  EXPECT_TRUE(verify_checkpoint(newest()).empty());
}

TEST_F(CheckpointDamage, a_file_cut_short_at_any_length_is_recognised_by_its_size) {
  const std::string file = newest() + "/rank-00001.h5";
  const std::string whole = bytes_of(file);
  for (std::size_t size = 0; size < whole.size(); size += 997) {
    overwrite(file, whole.substr(0, size));
    expect_fallback(Trust::sizes);
    expect_refused();
  }
}

TEST_F(CheckpointDamage, a_flipped_bit_anywhere_in_a_file_is_recognised_before_a_value_is_used) {
  const std::string file = newest() + "/rank-00000.h5";
  const std::size_t size = std::filesystem::file_size(file);
  for (std::size_t at = 0; at < size; at += 499) {
    flip(file, at, 0x10);
    expect_fallback(Trust::full);
    expect_refused();
    const Checkpoint checkpoint = Checkpoint::open(newest());  // sizes are right
    const std::string message = message_of([&] { expect_holds_step(checkpoint, 20); });
    EXPECT_NE(message.find(file), std::string::npos) << message;
    flip(file, at, 0x10);
  }
}

TEST_F(CheckpointDamage, a_missing_file_is_recognised) {
  std::filesystem::remove(newest() + "/rank-00001.h5");
  expect_fallback(Trust::sizes);
  expect_refused();
}

TEST_F(CheckpointDamage, a_folder_in_place_of_a_file_is_recognised) {
  for (const char* name : {"/rank-00001.h5", "/manifest.json"}) {
    std::filesystem::remove(newest() + name);
    std::filesystem::create_directory(newest() + name);
    expect_fallback(Trust::full);
    expect_refused();
  }
}

TEST_F(CheckpointDamage, a_manifest_cut_short_at_any_length_is_recognised) {
  const std::string whole = bytes_of(manifest());
  for (std::size_t size = whole.size(); size-- > 0;) {
    std::filesystem::resize_file(manifest(), size);
    message_of([&] { Checkpoint::open(newest()); });
    if (size % 101 == 0) expect_fallback(Trust::sizes);
  }
}

TEST_F(CheckpointDamage, a_flipped_bit_anywhere_in_a_manifest_is_recognised) {
  const std::string whole = bytes_of(manifest());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    flip(manifest(), at, 1 << at % 8);
    message_of([&] { Checkpoint::open(newest()); });
    flip(manifest(), at, 1 << at % 8);
  }
  expect_holds_step(Checkpoint::open(newest()), 20);
}

TEST_F(CheckpointDamage, a_missing_or_foreign_manifest_is_recognised) {
  for (const std::string& garbage : {std::string("hello"), std::string(5000, '\0'), std::string("{}")}) {
    overwrite(manifest(), garbage);
    expect_fallback(Trust::sizes);
    expect_refused();
  }
  std::filesystem::remove(manifest());
  expect_fallback(Trust::sizes);
  expect_refused();
}

// What a manifest would be if its content were `body` and its hash right: only its meaning is wrong.
std::string sealed(const std::string& body) {
  return fmt::format("{},\n\"xxh3\": \"{}\"\n}}\n", body, hex(hash_bytes(std::as_bytes(std::span(body)))));
}

TEST_F(CheckpointDamage, a_manifest_of_the_right_hash_but_wrong_content_is_refused_by_name) {
  const std::string whole = bytes_of(manifest());
  const std::string body = whole.substr(0, whole.rfind(",\n\"xxh3\""));
  ASSERT_EQ(sealed(body), whole);
  const auto with = [&](const std::string& from, const std::string& to) {
    const std::size_t at = body.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return std::string(body).replace(at, from.size(), to);
  };
  const std::string deep(100000, '[');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {with("\"format_version\": 1", "\"format_version\": 2"), "format version is 2"},
      {with("\"format_version\": 1,", ""), "format_version"},
      {with("\"step\": 20", "\"step\": -20"), "step"},
      {with("\"step\": 20", "\"step\": 2.5"), "step"},
      {with("\"step\": 20", "\"step\": \"20\""), "step"},
      {with("\"step\": 20", "\"step\": 18446744073709551615"), "step"},
      {with("\"attempt\": 1", "\"attempt\": null"), "attempt"},
      {with("\"files\": [", "\"files\": 7, \"others\": ["), "files"},
      {with("rank-00001.h5", "../../../etc"), "files"},
      {with("\"bytes\": ", "\"bytes\": -"), "bytes"},
      {with("\"xxh3\": \"", "\"xxh3\": \"zz"), "xxh3"},
      {with("\"shape\": [29, 17]", "\"shape\": [29, 18]"), "adam.m/embedding.weight"},
      {with("\"shape\": [29, 17]", "\"shape\": [29, -17]"), "shape"},
      {with("\"shape\": [29, 17]", "\"shape\": [0]"), "shape"},
      {with("\"shape\": [29, 17]", "\"shape\": [4294967296, 4294967296, 4294967296]"), "shape"},
      {with("\"pieces\": [[0, ", "\"pieces\": [[1, "), "gap or overlap"},
      {with("\"pieces\": [[0, ", "\"pieces\": [[0, 0, 0], [0, "), "gap or overlap"},
      {with("\"pieces\": [[0, ", "\"pieces\": [[0], [0, "), "pieces"},
      {with("\"pieces\": [[0, ", "\"pieces\": [0, [0, "), "pieces"},
      {with(", 0], ", ", 2], "), "pieces"},
      {with("adam.m/embedding.weight", "adam.m/embedding\\nweight"), "tensors"},
      {with("\"tensors\": {", "\"tensors\": [], \"others\": {"), "tensors"},
      {with("\"state\": {", "\"states\": {"), "state"},
      {with("\"state\": {", "\"state\": {\"deep\": " + deep + std::string(deep.size(), ']') + ","), "nested"},
      {with("\"step\": 20", "\"step\": " + deep), "nested"},
      {with("\"state\": {", "\"state\": {,"), "JSON"},
      {with("\"state\": {", "\"state\": {\"\xff\": 1,"), "JSON"},
      {"", "JSON"},
      {"[1", "JSON"},
  };
  for (const auto& [content, told] : cases) {
    overwrite(manifest(), sealed(content));
    const std::string message = message_of([&] { Checkpoint::open(newest()); });
    EXPECT_NE(message.find(told), std::string::npos) << message << " instead of " << told;
    EXPECT_NE(message.find(manifest()), std::string::npos) << message;
    EXPECT_LT(message.size(), 500u);
    expect_fallback(Trust::sizes);
  }
}

TEST_F(CheckpointDamage, a_file_of_the_right_hash_that_is_no_hdf5_is_refused_when_read) {
  const std::string file = newest() + "/rank-00000.h5";
  const auto entry = [](const std::string& bytes) {
    return fmt::format("\"bytes\": {}, \"xxh3\": \"{}\"", bytes.size(),
                       hex(hash_bytes(std::as_bytes(std::span(bytes)))));
  };
  const std::string whole = bytes_of(manifest()), before = entry(bytes_of(file)), garbage = "not HDF5";
  std::string body = whole.substr(0, whole.rfind(",\n\"xxh3\""));
  body.replace(body.find(before), before.size(), entry(garbage));
  overwrite(manifest(), sealed(body));
  overwrite(file, garbage);
  const Checkpoint checkpoint = Checkpoint::open(newest(), Trust::full);
  const std::string message = message_of([&] { expect_holds_step(checkpoint, 20); });
  EXPECT_NE(message.find(file), std::string::npos) << message;
}

TEST_F(CheckpointDamage, all_ranks_agree_on_the_checkpoint_though_one_alone_sees_the_damage) {
  flip(newest() + "/rank-00001.h5", 5000, 1);
  std::atomic<int> warnings = 0;
  run_ranks(3, [&](Communicator& comm) {
    const auto step = newest_complete(comm, folder(), Trust::full, [&](const std::string&) {
      EXPECT_EQ(comm.rank(), 0);
      ++warnings;
    });
    EXPECT_EQ(step, 10);
  });
  EXPECT_EQ(warnings, 1);
}

TEST_F(CheckpointDamage, with_no_whole_checkpoint_there_is_none_to_go_on_from) {
  for (const int step : {10, 20}) std::filesystem::remove(checkpoint_path(folder(), step) + "/rank-00000.h5");
  int warnings = 0;
  EXPECT_EQ(newest_complete(folder(), Trust::sizes, [&](const std::string&) { ++warnings; }), std::nullopt);
  EXPECT_EQ(warnings, 2);
}

}  // namespace
}  // namespace muster
