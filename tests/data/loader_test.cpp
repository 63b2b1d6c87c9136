#include "data/loader.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include "core/hash.hpp"
#include "core/hdf5.hpp"
#include "core/stream.hpp"
#include "data/prefetch.hpp"
#include "data/shard_writer.hpp"
#include "data/tokenizer.hpp"
#include "tests/data/scratch.hpp"

namespace muster {
namespace {

// Memory for one batch, and the batch over it.
struct Filled {
  Filled(Loader& loader, std::int64_t first_slot, std::int64_t count)
      : fields(Loader::fields(count, loader.options())),
        memory(Batch::bytes(fields), std::byte{0xb3}),
        batch(fields, memory) {
    loader.fill(first_slot, count, batch);
  }
  std::vector<Field> fields;
  std::vector<std::byte> memory;
  Batch batch;
};

// A ring of `depth` batches of `count` samples.
struct Ahead : Prefetch {
  Ahead(Loader& loader, MemoryAccount& account, int depth, std::int64_t count)
      : Prefetch(
            Loader::fields(count, loader.options()),
            [&loader](std::int64_t slot, std::int64_t samples, Batch& batch) {
              loader.fill(slot, samples, batch);
            },
            account, depth, count) {}
};

std::vector<std::int32_t> list(std::span<const std::int32_t> values) {
  return {values.begin(), values.end()};
}
using Ints = std::vector<std::int32_t>;

class Loading : public Scratch {
 protected:
  static Loader::Options options(std::int64_t sequence, bool documents = false, Split split = Split::train) {
    return {.sequence = sequence, .seed = 1, .split = split, .documents = documents, .vocabulary = 257};
  }
  // A dataset whose documents are the numbers of positions, so that a window shows where it lies: one shard
  // of u16.
  std::string make_counting(const std::string& name, std::vector<std::int64_t> ends) const {
    std::filesystem::create_directories(path(name));
    const auto tokenizer = make_id_tokenizer(65536, {});
    DatasetInfo info{.tokenizer = tokenizer->describe(),
                     .tokenizer_hash = tokenizer->hash(),
                     .vocabulary = tokenizer->vocabulary(),
                     .train = {},
                     .validation = {}};
    std::vector<std::uint16_t> tokens(static_cast<std::size_t>(ends.back()));
    std::iota(tokens.begin(), tokens.end(), std::uint16_t{0});
    for (const Split split : {Split::train, Split::validation}) {
      ShardWriter writer(path(name), split, info, tokens.size());
      std::int64_t begin = 0;
      for (const std::int64_t end : ends) {
        writer.append(std::as_bytes(std::span(tokens).subspan(begin, end - begin)));
        writer.end_document();
        begin = end;
      }
      (split == Split::train ? info.train : info.validation).shards = writer.finish();
    }
    write_dataset_info(path(name), info);
    return path(name);
  }
  Loader counting_loader(const Dataset& dataset, std::int64_t sequence, bool documents) {
    Loader::Options chosen = options(sequence, documents, Split::validation);
    chosen.vocabulary = 65536;
    return Loader({{&dataset}}, chosen, account_);
  }

  MemoryAccount account_;
};

TEST_F(Loading, validation_reads_windows_in_order_and_then_nothing) {
  const Dataset dataset(make_counting("d", {11}));
  Loader loader = counting_loader(dataset, 3, false);
  EXPECT_EQ(loader.samples(), 3);  // starts 0, 3, 6; token 10 has no target
  EXPECT_EQ(loader.dropped_tokens(), 1);
  const Filled filled(loader, 1, 3);
  EXPECT_EQ(list(filled.batch.i32("tokens")), (Ints{3, 4, 5, 6, 7, 8, 0, 0, 0}));
  EXPECT_EQ(list(filled.batch.i32("targets")), (Ints{4, 5, 6, 7, 8, 9, -1, -1, -1}));
  EXPECT_EQ(list(filled.batch.i32("positions")), (Ints{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(list(filled.batch.i32("document_starts")), (Ints{0, 3, 6, 9}));
  EXPECT_EQ(filled.batch.valid_targets, 6);
}

TEST_F(Loading, documents_restart_positions_and_no_target_crosses_a_border) {
  // Windows of 4: [0 1 | 2 3] -> 4: the border at 2 is inside, the border at 4 is between the last input and
  // its target. [4 | 5 6 7] -> 8: the border at 4 is the window's own start.
  const Dataset dataset(make_counting("d", {2, 4, 5, 12}));
  Loader loader = counting_loader(dataset, 4, true);
  const Filled filled(loader, 0, 2);
  EXPECT_EQ(list(filled.batch.i32("tokens")), (Ints{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(list(filled.batch.i32("targets")), (Ints{1, -1, 3, -1, -1, 6, 7, 8}));
  EXPECT_EQ(list(filled.batch.i32("positions")), (Ints{0, 1, 0, 1, 0, 0, 1, 2}));
  EXPECT_EQ(list(filled.batch.i32("document_starts")), (Ints{0, 2, 4, 5, 8, 8, 8, 8, 8}));
  EXPECT_EQ(filled.batch.valid_targets, 5);
  EXPECT_EQ(filled.batch.merged_documents, 0);
}

TEST_F(Loading, documents_beyond_the_bound_are_merged_and_counted) {
  // 100 documents of one token in a window of 100: at most 64 are kept apart.
  std::vector<std::int64_t> ends(201);
  std::iota(ends.begin(), ends.end(), 1);
  const Dataset dataset(make_counting("d", ends));
  Loader loader = counting_loader(dataset, 100, true);
  EXPECT_EQ(Loader::max_documents(2, loader.options()), 128);
  const Filled filled(loader, 0, 2);
  EXPECT_EQ(filled.batch.merged_documents, 2 * 36);
  // 63 inner borders are kept in each; the last target lies across a border as well.
  EXPECT_EQ(filled.batch.valid_targets, 2 * (100 - 63 - 1));
  EXPECT_EQ(filled.batch.i32("document_starts")[63], 63);
  EXPECT_EQ(filled.batch.i32("document_starts")[64], 100);
  EXPECT_EQ(filled.batch.i32("document_starts")[128], 200);
  EXPECT_EQ(filled.batch.i32("positions")[99], 36);
}

// The end token stands before a document as it stands behind one: every target counts, and what documents begin with is
// learnt.
TEST_F(Loading, an_end_token_begins_the_document_after_it) {
  constexpr std::int32_t end = 256;
  const Dataset dataset(make_dataset("d", {3, 2, 5}));  // aaa. bb.c cccc .
  const auto window_that_begins_with = [&](char first, DocumentStart start) {
    Loader::Options chosen = options(4, true);
    chosen.document_start = start;
    Loader loader({{&dataset}}, chosen, account_);
    std::int64_t slot = 0;
    while (slot < loader.samples() && Filled(loader, slot, 1).batch.i32("tokens")[0] != first) ++slot;
    return Filled(loader, slot, 1);
  };
  const Filled a = window_that_begins_with('a', DocumentStart::end_token);
  EXPECT_EQ(list(a.batch.i32("tokens")), (Ints{'a', 'a', 'a', end}));
  EXPECT_EQ(list(a.batch.i32("targets")), (Ints{'a', 'a', end, 'b'}));
  EXPECT_EQ(list(a.batch.i32("positions")), (Ints{0, 1, 2, 0}));
  EXPECT_EQ(list(a.batch.i32("document_starts")), (Ints{0, 3, 4, 4, 4}));
  EXPECT_EQ(a.batch.valid_targets, 4);
  const Filled b = window_that_begins_with('b', DocumentStart::end_token);
  EXPECT_EQ(list(b.batch.i32("targets")), (Ints{'b', end, 'c', 'c'}));
  EXPECT_EQ(list(b.batch.i32("positions")), (Ints{0, 1, 0, 1}));
  EXPECT_EQ(list(b.batch.i32("document_starts")), (Ints{0, 2, 4, 4, 4}));
  EXPECT_EQ(b.batch.valid_targets, 4);

  const Filled before = window_that_begins_with('a', DocumentStart::first_token);
  EXPECT_EQ(list(before.batch.i32("targets")), (Ints{'a', 'a', end, -1}));
  EXPECT_EQ(list(before.batch.i32("positions")), (Ints{0, 1, 2, 3}));
  EXPECT_EQ(before.batch.valid_targets, 3);
}

TEST_F(Loading, tells_how_many_documents_are_cut_and_joined) {
  const Dataset whole(make_counting("whole", {5, 9, 10, 14, 40}));
  const Loader::Cuts few = counting_loader(whole, 10, true).cuts();
  EXPECT_EQ(few.documents, 5u);
  EXPECT_EQ(few.cut, 1u);  // the last, over three samples; the second and the fourth end inside theirs
  EXPECT_EQ(few.longer, 1u);
  EXPECT_EQ(few.joined, 0u);
  std::vector<std::int64_t> ends(201);
  std::iota(ends.begin(), ends.end(), 1);
  const Dataset dataset(make_counting("d", ends));
  Loader loader = counting_loader(dataset, 100, true);
  const Loader::Cuts many = loader.cuts();
  EXPECT_EQ(many.cut, 0u);
  EXPECT_EQ(static_cast<std::int64_t>(many.joined), Filled(loader, 0, 2).batch.merged_documents);
}

// A slow and obvious version over all borders of a shard with many documents.
TEST_F(Loading, borders_agree_with_a_list_of_all_of_them) {
  std::vector<std::int64_t> ends;
  std::set<std::int64_t> all;
  for (std::int64_t end = 0, i = 0; end < 60000; ++i) {
    end += 1 + static_cast<std::int64_t>(mix64(static_cast<std::uint64_t>(i)) % 37);
    ends.push_back(end);
    all.insert(end);
  }
  ASSERT_GT(ends.size(), 5 * document_ends_of_block);
  const Dataset dataset(make_counting("d", ends));
  Loader loader = counting_loader(dataset, 48, true);
  for (std::int64_t slot = 0; slot < loader.samples(); ++slot) {
    const Filled filled(loader, slot, 1);
    std::int32_t position = 0;
    std::int64_t valid = 0;
    Ints starts;
    for (std::int32_t i = 0; i < 48; ++i) {
      const std::int64_t at = slot * 48 + i;
      if (i == 0 || all.contains(at)) {
        starts.push_back(i);
        position = 0;
      }
      const bool crosses = all.contains(at + 1);
      ASSERT_EQ(filled.batch.i32("positions")[i], position++) << at;
      ASSERT_EQ(filled.batch.i32("targets")[i], crosses ? -1 : static_cast<std::int32_t>(at + 1) % 65536)
          << at;
      valid += crosses ? 0 : 1;
    }
    starts.resize(filled.batch.i32("document_starts").size(), 48);
    ASSERT_EQ(list(filled.batch.i32("document_starts")), starts) << slot;
    ASSERT_EQ(filled.batch.valid_targets, valid);
  }
}

TEST_F(Loading, an_epoch_holds_each_window_of_each_shard_once) {
  const Dataset dataset(make_dataset("d", std::vector<std::size_t>(50, 30), 100));  // shards of 93 tokens
  Loader loader({{&dataset}}, options(10), account_);
  ASSERT_EQ(loader.samples(),
            150);  // 16 shards of 3 documents: 9 windows; one of 2 (62 tokens): 6
  std::multiset<Ints> first, second;
  for (std::int64_t slot = 0; slot < 150; ++slot) {
    first.insert(list(Filled(loader, slot, 1).batch.i32("tokens")));
    second.insert(list(Filled(loader, slot + 150, 1).batch.i32("tokens")));
  }
  EXPECT_EQ(first, second);
}

TEST_F(Loading, a_range_of_slots_gives_the_same_however_it_is_divided) {
  const Dataset a(make_dataset("a", std::vector<std::size_t>(50, 30), 100)), b(make_dataset("b", {500, 400}));
  Loader whole({{&a, 0.7}, {&b, 0.3}}, options(16, true), account_);
  Loader parts({{&a, 0.7}, {&b, 0.3}}, options(16, true), account_);
  const Filled all(whole, 4090, 12);
  for (std::int64_t i = 11; i >= 0; --i) {
    const Filled one(parts, 4090 + i, 1);
    const auto piece = [&](std::span<std::int32_t> values) { return list(values.subspan(16 * i, 16)); };
    EXPECT_EQ(list(one.batch.i32("tokens")), piece(all.batch.i32("tokens")));
    EXPECT_EQ(list(one.batch.i32("targets")), piece(all.batch.i32("targets")));
    EXPECT_EQ(list(one.batch.i32("positions")), piece(all.batch.i32("positions")));
  }
}

TEST_F(Loading, sources_are_mixed_by_weight) {
  const Dataset a(make_dataset("a", {1000})), b(make_counting("b", {1000}));
  Loader::Options chosen = options(16);
  chosen.vocabulary = 65536;
  EXPECT_TRUE(tells(message_of([&] {
                      Loader({{&a}, {&b}}, chosen, account_);
                    }),
                    {path("a"), path("b"), "different tokenizers"}));
  const Dataset c(make_dataset("c", {1000, 1000}));  // its second document is of b
  Loader loader({{&a, 3}, {&c, 1}}, options(16), account_);
  std::int64_t in_c = 0;
  for (std::int64_t slot = 0; slot < 4096; ++slot) {
    const Filled filled(loader, slot, 1);
    in_c += std::ranges::count(filled.batch.i32("tokens"), 'b') > 0 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(in_c), 512,
              6);  // a quarter of 4,096 is c, a half of it 'b'; 125 windows an epoch
}

TEST_F(Loading, what_cannot_be_loaded_is_refused_by_name) {
  const Dataset dataset(make_dataset("d", {30, 30}, 31));
  Loader::Options small = options(10);
  small.vocabulary = 256;
  EXPECT_TRUE(tells(message_of([&] { Loader({{&dataset}}, small, account_); }),
                    {path("d"), "vocabulary of 257", "model.vocabulary to 257"}));
  Loader::Options with_a_mask = options(10);
  with_a_mask.own_tokens = 1;
  EXPECT_TRUE(tells(message_of([&] { Loader({{&dataset}}, with_a_mask, account_); }),
                    {"the model one of 257 with 1 of its own", "model.vocabulary to 258"}));
  EXPECT_TRUE(tells(message_of([&] { Loader({{&dataset}}, options(31), account_); }),
                    {path("d"), "train split", "longest shard has 31", "train.sequence", "--shard-tokens"}));
  EXPECT_EQ(message_of([&] { Loader({{&dataset}}, options(30), account_); }), "no error");
  EXPECT_TRUE(
      tells(message_of([&] { Loader({{&dataset}}, options(10, false, Split::validation), account_); }),
            {path("d"), "validation split", "prepare more text"}));
  const std::string held_out = make_counting("e", {5, 7, 9}) + "/validation-00000.h5";
  const std::int64_t before_the_first = 3;
  File::open_to_update(held_out).write_at(
      std::as_bytes(std::span(&before_the_first, 1)),
      *H5File::open_to_read(held_out).dataset("document_ends").file_offset() + 8);
  const Dataset disorder(path("e"), Verify::size);
  EXPECT_TRUE(tells(message_of([&] { counting_loader(disorder, 4, true); }), {held_out, "do not increase"}));
}

TEST_F(Loading, memory_is_what_was_foretold) {
  const std::string folder = make_counting("d", {5, 9, 400});
  const DatasetInfo info = read_dataset_info(folder);
  const std::vector<const DatasetInfo*> infos = {&info};
  const Dataset dataset(folder);
  Loader::Options chosen = options(100, true);
  chosen.vocabulary = 65536;
  {
    Loader loader({{&dataset}}, chosen, account_);
    const std::uint64_t own = Loader::memory(infos, chosen);
    EXPECT_EQ(account_.now(MemoryKind::data), own);
    const Ahead prefetch(loader, account_, 3, 8);
    EXPECT_EQ(account_.now(MemoryKind::data), own + Prefetch::memory(Loader::fields(8, chosen), 3));
  }
  EXPECT_EQ(account_.now(MemoryKind::data), 0u);
}

TEST_F(Loading, prefetch_gives_batches_in_the_order_asked_for) {
  const Dataset dataset(make_dataset("d", std::vector<std::size_t>(50, 30)));
  Loader ahead({{&dataset}}, options(16, true), account_), direct({{&dataset}}, options(16, true), account_);
  Ahead prefetch(ahead, account_, 3, 4);
  for (std::int64_t i = 0; i < 40; ++i) prefetch.request(i * 7 % 40);
  for (std::int64_t i = 0; i < 40; ++i) {
    const Batch& batch = prefetch.next();
    const Filled wanted(direct, i * 7 % 40, 4);
    ASSERT_EQ(list(batch.i32("tokens")), list(wanted.batch.i32("tokens")));
    ASSERT_EQ(list(batch.i32("targets")), list(wanted.batch.i32("targets")));
    ASSERT_EQ(list(batch.i32("positions")), list(wanted.batch.i32("positions")));
    ASSERT_EQ(list(batch.i32("document_starts")), list(wanted.batch.i32("document_starts")));
    ASSERT_EQ(batch.valid_targets, wanted.batch.valid_targets);
    EXPECT_GE(prefetch.waited_ms(), 0);
    prefetch.give_back();
  }
  for (int i = 0; i < 10; ++i) prefetch.request(i);  // and is destroyed while it reads
}

TEST_F(Loading, waiting_for_a_device_is_no_waiting_for_data) {
  const Dataset dataset(make_dataset("d", std::vector<std::size_t>(50, 30)));
  Loader loader({{&dataset}}, options(16, true), account_);
  Ahead prefetch(loader, account_, 2, 1);
  for (const std::int64_t slot : {0, 1, 2}) prefetch.request(slot);
  const Promise copied;
  prefetch.next();
  prefetch.give_back(copied.event());
  prefetch.next();
  prefetch.give_back();
  double free_since = 0;
  std::thread device([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // so that next() is there before
    free_since = steady_seconds();
    copied.set_complete();
  });
  prefetch.next();
  const double given = steady_seconds();
  device.join();
  EXPECT_LE(prefetch.waited_ms(), 1e3 * (given - free_since));
}

TEST_F(Loading, prefetch_throws_a_failure_where_it_belongs) {
  const std::string folder = make_counting("d", {3000}), shard = folder + "/validation-00000.h5";
  const Dataset dataset(folder);
  Loader loader = counting_loader(dataset, 9, false);
  Ahead prefetch(loader, account_, 2, 1);
  // The last blocks are cut off under the open file; the first one is whole.
  const auto offset = H5File::open_to_read(shard).dataset("tokens").file_offset();
  std::filesystem::resize_file(shard, *offset + 3000);
  for (const std::int64_t slot : {0, 300, 1}) prefetch.request(slot);
  EXPECT_EQ(prefetch.next().i32("tokens")[0], 0);
  prefetch.give_back();
  EXPECT_TRUE(tells(message_of([&] { prefetch.next(); }), {"validation-00000.h5 is cut short"}));
  EXPECT_EQ(prefetch.next().i32("tokens")[0], 9);
}

}  // namespace
}  // namespace muster
