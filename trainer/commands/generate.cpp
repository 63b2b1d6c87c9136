#include "trainer/commands/generate.hpp"

#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "data/tokenizer.hpp"
#include "model/families/family.hpp"
#include "trainer/generate/generator.hpp"
#include "trainer/generate/written_text.hpp"
#include "trainer/machine/rank_machine.hpp"
#include "trainer/plan/memory_check.hpp"

namespace muster {

int generate_command(const GenerateOptions& options) {
  const Config config = read_config(options.run, options.overrides);
  if (config.model.vocabulary == 0)
    throw UserError("{} does not tell the vocabulary of a model: name the folder of a run instead",
                    options.run);
  if (!family_of(config.model).writes_text)
    throw UserError("{}: a model of the family {} writes no text; muster eval measures it", options.run,
                    spelling(config.model.family));
  set_thread_count(threads_of_rank(config.run.threads, 1));
  MemoryAccount account;
  const std::unique_ptr<Machine> machine = single_machine(config, account);
  Generator generator(config, options.checkpoint, *machine);
  check_as_planned(machine->account(), generator.memory());
  const std::unique_ptr<Tokenizer> tokenizer =
      tokenizer_from_description(generator.model().tokenizer(), generator.model().path());

  std::vector<std::uint32_t> prompt;
  // What a text begins with, as documents did in training.
  if (tokenizer->end_token() && begins_with_end_token(config.data)) prompt.push_back(*tokenizer->end_token());
  tokenizer->encode(options.prompt, prompt);
  if (prompt.empty())
    throw UserError(
        "{} was trained on documents that begin with nothing before them to start from: give a --prompt",
        options.run);
  if (std::cmp_greater(prompt.size(), config.model.context))
    fmt::print(stderr, "the prompt is {} tokens long, of which the model reads the last {}\n", prompt.size(),
               config.model.context);
  std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
  WrittenText text(isatty(STDOUT_FILENO) != 0);
  fmt::print("{}", text.add(options.prompt));
  const Sampling sampling{options.temperature, options.top_k, options.top_p,
                          static_cast<std::uint64_t>(options.seed), tokenizer->vocabulary()};
  const auto start = std::chrono::steady_clock::now();
  std::int64_t written = 0;
  generator.generate(tokens, options.tokens, sampling, [&](std::int32_t token) {
    ++written;
    const auto id = static_cast<std::uint32_t>(token);
    if (tokenizer->end_token() == id) return false;
    fmt::print("{}", text.add(tokenizer->decode(std::span(&id, 1))));
    return std::fflush(stdout) == 0;  // nobody is to wait for what is lost
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{}\n", text.end());
  std::fflush(stdout);
  fmt::print(stderr, "{} tokens, {:.1f} tokens/s\n", written, static_cast<double>(written) / seconds);
  return 0;
}

}  // namespace muster
