#include "data/prepare.hpp"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fmt/ranges.h>
#include <memory>
#include <set>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "data/input.hpp"
#include "data/input_blocks.hpp"
#include "data/output_folder.hpp"
#include "data/shard_writer.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> tokenizer_for(const std::vector<InputFile>& inputs,
                                         const PrepareOptions& options) {
  const auto is_ids = [](const InputFile& input) { return input.kind == InputKind::ids; };
  const auto ids = std::find_if(inputs.begin(), inputs.end(), is_ids);
  if (ids == inputs.end()) {
    if (options.vocabulary || options.end_token || !options.token_type.empty())
      throw UserError(
          "--vocabulary, --end-token and --token-type tell of tokens made elsewhere, and {} is text: leave "
          "them out",
          inputs.front().path);
    return make_tokenizer(options.tokenizer);
  }
  if (const auto text = std::find_if_not(inputs.begin(), inputs.end(), is_ids); text != inputs.end())
    throw UserError("{} holds text and {} tokens: prepare them as two datasets", text->path, ids->path);
  const auto tells = [](const InputFile& input) { return input.vocabulary.has_value(); };
  const auto told = std::find_if(inputs.begin(), inputs.end(), tells);
  if (!options.vocabulary && told == inputs.end())
    throw UserError("{} needs the size of its vocabulary: give --vocabulary", ids->path);
  if (!options.vocabulary)
    for (const InputFile& input : inputs)
      if (input.vocabulary != told->vocabulary)
        throw UserError("{} tells a vocabulary of {}, and {} another or none: give --vocabulary", told->path,
                        *told->vocabulary, input.path);
  return make_id_tokenizer(options.vocabulary ? *options.vocabulary : *told->vocabulary, options.end_token);
}

// Encodes blocks in parallel; the failure of the first block in order is thrown.
std::vector<Encoded> encode_all(const std::vector<InputBlock>& blocks, const Tokenizer& tokenizer, DType type,
                                bool skip_bad_lines) {
  std::vector<Encoded> encoded(blocks.size());
  std::vector<std::exception_ptr> failures(blocks.size());
  parallel_tasks(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t task, int) {
    const auto i = static_cast<std::size_t>(task);
    try {
      encoded[i] = encode(blocks[i], tokenizer, type, skip_bad_lines);
    } catch (...) {
      failures[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
  return encoded;
}

// Divides documents into the two splits.
class Division {
 public:
  Division(const std::string& folder, const DatasetInfo& info, const PrepareOptions& options)
      : train_(folder, Split::train, info, options.shard_tokens),
        validation_(folder, Split::validation, info, options.shard_tokens),
        share_(options.validation),
        token_bytes_(size_of(info.token_type())) {}

  void add(const InputFile& file, const Encoded& encoded, PrepareProgress& done) {
    std::size_t at = 0;
    for (const Piece& piece : encoded.pieces) {
      if (piece.first)
        held_out_ = file.held_out.value_or(static_cast<double>(piece.hash >> 11) * 0x1p-53 < share_);
      ShardWriter& writer = held_out_ ? validation_ : train_;
      writer.append(std::span(encoded.tokens).subspan(at, piece.tokens * token_bytes_));
      if (piece.last) writer.end_document();
      at += piece.tokens * token_bytes_;
      (held_out_ ? validation_bytes_ : train_bytes_) += piece.text_bytes;
      done.tokens += piece.tokens;
      done.documents += piece.last ? 1 : 0;
    }
  }

  void finish(DatasetInfo& info) {
    info.train = {train_.finish(), train_bytes_};
    info.validation = {validation_.finish(), validation_bytes_};
  }

 private:
  ShardWriter train_, validation_;
  double share_;
  std::size_t token_bytes_;
  bool held_out_ = false;  // the document that is being added
  std::uint64_t train_bytes_ = 0, validation_bytes_ = 0;
};

// Counts them, and tells of the first ones.
void tell_skipped(const InputFile& file, const std::vector<BadLine>& lines, PrepareProgress& done,
                  const PrepareOptions& options) {
  constexpr std::uint64_t told = 10;
  for (const BadLine& line : lines)
    if (done.skipped_lines++ < told)
      options.tell(fmt::format("skipped: {} {}", name_of(file, line), line.fault));
    else if (done.skipped_lines == told + 1)
      options.tell("skipped lines are counted from here on, and not told one by one");
}

// Too few to divide whole: the hash would put less than ten into one split, and often none.
bool are_few_and_whole(const std::vector<InputFile>& files, const PrepareOptions& options) {
  const double share = options.validation;
  const auto is_one_document = [&](const InputFile& file) {
    return file.kind == InputKind::text ||
           (file.kind == InputKind::ids && file.index.empty() && !options.end_token);
  };
  return share > 0 && share < 1 && static_cast<double>(files.size()) * std::min(share, 1 - share) < 10 &&
         std::ranges::all_of(files, is_one_document);
}

// The files of both splits. Those whose documents are divided by their hash do not know theirs.
std::vector<InputFile> files_of(const std::vector<std::string>& inputs, const PrepareOptions& options) {
  std::vector<InputFile> files = find_inputs(inputs, options.token_type);
  if (options.validation_inputs.empty())
    return are_few_and_whole(files, options) ? with_ends_held_out(files, options.validation) : files;
  std::set<fs::path> trained_on;
  for (InputFile& file : files) {
    file.held_out = false;
    trained_on.insert(fs::weakly_canonical(file.path));
  }
  for (InputFile& file : find_inputs(options.validation_inputs, options.token_type)) {
    file.held_out = true;
    if (trained_on.contains(fs::weakly_canonical(file.path)))
      throw UserError("{} is to be trained on and held out: name it once", file.path);
    files.push_back(std::move(file));
  }
  return files;
}

void check_splits(const DatasetInfo& info, const std::vector<std::string>& inputs,
                  const PrepareOptions& options, std::uint64_t documents) {
  const auto empty = [](const std::vector<std::string>& names) {
    return UserError("{} hold{} no text: name other files", fmt::join(names, ", "),
                     names.size() == 1 ? "s" : "");
  };
  const bool named = !options.validation_inputs.empty();
  if (documents == 0 || (named && info.train.shards.empty())) throw empty(inputs);
  if (named && info.validation.shards.empty()) throw empty(options.validation_inputs);
  if (info.train.shards.empty() && options.validation < 1)
    throw UserError(
        "the share of {} fell on {}, and none is left to train on: name what to hold out by "
        "--validation-input, or give --validation 0",
        options.validation,
        documents == 1 ? "the only document" : fmt::format("all {} documents", documents));
}

void check_options(const PrepareOptions& options) {
  if (!(options.validation >= 0 && options.validation <= 1))
    throw UserError("--validation is {}: it must be a share between 0 and 1", options.validation);
  if (options.shard_tokens == 0) throw UserError("--shard-tokens is 0: it must be at least 1");
}

}  // namespace

DatasetInfo prepare(const std::vector<std::string>& inputs, const std::string& output,
                    const PrepareOptions& options,
                    const std::function<void(const PrepareProgress&)>& progress) {
  check_options(options);
  const std::vector<InputFile> files = files_of(inputs, options);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_for(files, options);
  DatasetInfo info{.tokenizer = tokenizer->describe(),
                   .tokenizer_hash = tokenizer->hash(),
                   .vocabulary = tokenizer->vocabulary(),
                   .train = {},
                   .validation = {}};
  PrepareProgress done;
  for (const InputFile& file : files) done.total_bytes += file.end - file.begin;

  OutputFolder folder(output, options.tell);
  {
    Division division(output, info, options);
    InputBlocks blocks(files);
    const std::uint64_t batch = 4 * block_bytes * static_cast<std::uint64_t>(thread_count());
    for (std::vector<InputBlock> some = blocks.next(batch); !some.empty(); some = blocks.next(batch)) {
      const std::vector<Encoded> encoded =
          encode_all(some, *tokenizer, info.token_type(), options.skip_bad_lines);
      for (std::size_t i = 0; i < some.size(); ++i) {
        division.add(*some[i].file, encoded[i], done);
        tell_skipped(*some[i].file, encoded[i].bad_lines, done, options);
        done.bytes += some[i].file_bytes;
      }
      if (progress) progress(done);
    }
    division.finish(info);
  }
  if (done.skipped_lines > 0)
    options.tell(fmt::format("{} line{} skipped; {} documents were read", done.skipped_lines,
                             done.skipped_lines == 1 ? " was" : "s were", done.documents));
  check_splits(info, inputs, options, done.documents);
  write_dataset_info(output, info);
  folder.keep();
  return info;
}

}  // namespace muster
