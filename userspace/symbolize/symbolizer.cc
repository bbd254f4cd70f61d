#include "userspace/symbolize/symbolizer.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/strings.h"
#include "userspace/base/thread.h"

namespace pyrometer::symbolize {
namespace {

// Entries for processes without perf map cost little; this many are remembered.
constexpr size_t kMaxJitProcesses = 4096;
constexpr int kDeferredNice = 15;

constexpr uint32_t kFileBit = 1u << 31;  // in NameKey::name
// What debuggers call it, too.
constexpr const char* kNamelessFunction = "??";

// Identifies a way to a file, to notice that a new question brings a new one.
std::string SourceKey(const BinarySource& source) {
  return StrFormat("%s|%s|%d", source.root, source.path, source.openers.size());
}

size_t BytesOf(const FunctionName& name) {
  constexpr size_t kOverhead = sizeof(FunctionName) + 2 * sizeof(void*) + 120;  // shared block, map and list nodes
  return kOverhead + name.name.capacity() + name.system_name.capacity();
}

}  // namespace

Symbolizer::Symbolizer(Options options)
    : options_(std::move(options)), index_cache_(options_.index_cache), kernel_(options_.kernel) {}

Symbolizer::~Symbolizer() {
  {
    const std::lock_guard lock(deferred_mutex_);
    stop_ = true;
  }
  deferred_changed_.notify_all();
  if (deferred_thread_.joinable()) deferred_thread_.join();
}

bool Symbolizer::Usable(const Table& table, const std::string& source_key, uint64_t now_ns) const {
  if (table.symbols == nullptr) return false;
  switch (table.symbols->problem()) {
    case MissReason::kNone:
      return true;
    case MissReason::kNoSymbols:  // the same file says the same; a debug package may come later
    case MissReason::kNotElf:
    case MissReason::kUnsupportedElf:
    case MissReason::kLimitReached:
      return now_ns - table.built_ns < options_.retry_ns;
    default:  // could not be reached this way; another process may show it
      return table.source_key == source_key && now_ns - table.built_ns < options_.retry_ns;
  }
}

std::shared_ptr<const BinarySymbols> Symbolizer::Get(const BuildId& build_id, const BinarySource& source) {
  // Without a build ID only the place tells binaries apart.
  const std::string key = build_id.empty() ? "?" + source.root + "|" + source.path : build_id.hex;
  std::shared_ptr<Table> table;
  {
    const std::lock_guard lock(tables_mutex_);
    const auto found = tables_.find(key);
    if (found != tables_.end()) {
      table = found->second;
      recent_tables_.splice(recent_tables_.begin(), recent_tables_, table->recent);
      if (table->symbols != nullptr && table->symbols->problem() == MissReason::kNone) return table->symbols;
    } else {
      table = std::make_shared<Table>();
      recent_tables_.push_front(key);
      table->recent = recent_tables_.begin();
      tables_.emplace(key, table);
    }
  }
  const std::string source_key = SourceKey(source);
  const std::lock_guard building(table->build_mutex);
  {
    const std::lock_guard lock(tables_mutex_);
    if (Usable(*table, source_key, MonotonicNowNs())) return table->symbols;
  }
  BuildOptions build_options = MakeBuildOptions();
  build_options.max_debug_bytes = options_.defer_debug_bytes;
  std::shared_ptr<const BinarySymbols> symbols = BinarySymbols::Build(build_id, source, build_options);
  PutTable(key, table, source_key, symbols);
  if (symbols->debug_deferred()) Defer(key, build_id, source);
  return symbols;
}

BuildOptions Symbolizer::MakeBuildOptions() {
  BuildOptions options;
  options.debug_folders = options_.debug_folders;
  options.max_memory_bytes = options_.table_cache_bytes;
  options.stop = &stop_;
  if (index_cache_.status().ok()) {
    options.cache = &index_cache_;
    options.scratch_folder = index_cache_.folder();
    options.max_memory_bytes = options_.max_index_bytes;
  }
  return options;
}

void Symbolizer::PutTable(const std::string& key, const std::shared_ptr<Table>& table, const std::string& source_key,
                          const std::shared_ptr<const BinarySymbols>& symbols) {
  const std::lock_guard lock(tables_mutex_);
  ++(symbols->from_cache() ? tables_loaded_ : tables_built_);
  table->symbols = symbols;
  table->source_key = source_key;
  table->built_ns = MonotonicNowNs();
  if (const auto found = tables_.find(key); found != tables_.end() && found->second == table) {
    table_bytes_ -= table->bytes;
    table->bytes = symbols->memory_bytes() + 2 * key.size() + sizeof(Table);
    table_bytes_ += table->bytes;
    EvictTablesLocked(key);
  }
}

void Symbolizer::Defer(const std::string& key, const BuildId& build_id, const BinarySource& source) {
  const std::lock_guard lock(deferred_mutex_);
  // A table that was evicted meanwhile may ask twice.
  for (const Deferred& waiting : deferred_) {
    if (waiting.key == key) return;
  }
  deferred_.push_back({key, build_id, source});
  if (!deferred_thread_.joinable()) deferred_thread_ = std::thread([this] { DeferredLoop(); });
  deferred_changed_.notify_all();
}

void Symbolizer::DeferredLoop() {
  // Nobody waits for lines; what runs on this machine goes first.
  NameThisThread("pyro-debug", kDeferredNice);
  std::unique_lock lock(deferred_mutex_);
  while (true) {
    deferred_changed_.wait(lock, [&] { return stop_ || !deferred_.empty(); });
    if (stop_) return;
    const Deferred work = deferred_.front();
    lock.unlock();
    const std::shared_ptr<const BinarySymbols> symbols =
        BinarySymbols::Build(work.build_id, work.source, MakeBuildOptions());
    std::shared_ptr<Table> table;
    {
      const std::lock_guard tables(tables_mutex_);
      if (const auto found = tables_.find(work.key); found != tables_.end()) table = found->second;
    }
    // What became worse (the file is gone meanwhile) does not replace what is there.
    if (table != nullptr && !stop_ && symbols->problem() == MissReason::kNone) {
      PutTable(work.key, table, SourceKey(work.source), symbols);
    }
    lock.lock();
    deferred_.pop_front();
    deferred_changed_.notify_all();
  }
}

bool Symbolizer::FinishDeferred(uint64_t timeout_ns) {
  std::unique_lock lock(deferred_mutex_);
  return deferred_changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return deferred_.empty(); });
}

void Symbolizer::EvictTablesLocked(const std::string& keep) {
  auto last = recent_tables_.end();
  while (table_bytes_ > options_.table_cache_bytes && last != recent_tables_.begin()) {
    --last;
    const auto found = tables_.find(*last);
    // One that is being built has no bytes yet; its builder needs it.
    if (*last == keep || found->second->symbols == nullptr) continue;
    table_bytes_ -= found->second->bytes;
    tables_.erase(found);
    last = recent_tables_.erase(last);
    ++tables_evicted_;
  }
}

template <typename Maker>
std::shared_ptr<const FunctionName> Symbolizer::Cached(const NameKey& key, const Maker& make) {
  {
    const std::lock_guard lock(names_mutex_);
    if (const auto found = names_.find(key); found != names_.end()) {
      recent_names_.splice(recent_names_.begin(), recent_names_, found->second.recent);
      return found->second.function;
    }
  }
  auto function = std::make_shared<const FunctionName>(make());

  const std::lock_guard lock(names_mutex_);
  const auto [position, added] = names_.try_emplace(key);
  if (!added) return position->second.function;  // somebody was faster
  recent_names_.push_front(key);
  position->second = {function, recent_names_.begin()};
  name_bytes_ += BytesOf(*function);
  while (name_bytes_ > options_.name_cache_bytes && recent_names_.size() > 1) {
    const auto oldest = names_.find(recent_names_.back());
    name_bytes_ -= BytesOf(*oldest->second.function);
    names_.erase(oldest);
    recent_names_.pop_back();
  }
  return function;
}

std::shared_ptr<const FunctionName> Symbolizer::NameOf(const BinarySymbols& symbols, uint32_t function) {
  return Cached({symbols.serial(), function}, [&] {
    const std::string_view raw = symbols.index().name(function);
    FunctionName made;
    made.name = raw.empty() ? kNamelessFunction : Demangle(raw, options_.demangle_style);
    if (!raw.empty() && made.name != raw) made.system_name = PrintableName(raw);
    made.start_line = symbols.index().start_line(function);
    return made;
  });
}

std::shared_ptr<const std::string> Symbolizer::FileOf(const BinarySymbols& symbols, uint32_t file) {
  if (file == 0) return nullptr;
  const std::shared_ptr<const FunctionName> kept = Cached({symbols.serial(), file | kFileBit}, [&] {
    FunctionName made;
    made.name = PrintableName(symbols.index().file(file));
    return made;
  });
  return kept->name.empty() ? nullptr : std::shared_ptr<const std::string>(kept, &kept->name);
}

Symbol Symbolizer::ToSymbol(const BinarySymbols& symbols, std::span<const SymbolIndex::Frame> frames, uint64_t offset) {
  // A line without any function is not a name.
  while (!frames.empty() && frames.back().function == 0) frames = frames.first(frames.size() - 1);
  if (frames.empty()) return CountMiss(symbols.ReasonForMiss());
  Symbol symbol;
  symbol.function = NameOf(symbols, frames.back().function);
  symbol.file = FileOf(symbols, frames.back().file);
  symbol.line = frames.back().line;
  symbol.offset = offset;
  symbol.inlined.reserve(frames.size() - 1);
  for (const SymbolIndex::Frame& frame : frames.first(frames.size() - 1)) {
    symbol.inlined.push_back({NameOf(symbols, frame.function), FileOf(symbols, frame.file), frame.line});
  }
  counters_.Count(MissReason::kNone);
  return symbol;
}

Symbol Symbolizer::SymbolizeIn(const BinarySymbols& symbols, ElfAddress address) {
  static thread_local std::vector<SymbolIndex::Frame> frames;
  frames.clear();
  uint64_t offset = 0;
  symbols.index().Frames(address, &frames, &offset);
  return ToSymbol(symbols, frames, offset);
}

std::vector<Symbol> Symbolizer::SymbolizeIn(const BinarySymbols& symbols, std::span<const ElfAddress> addresses) {
  SymbolIndex::FrameLists lists;
  symbols.index().Frames(addresses, &lists);
  std::vector<Symbol> result;
  result.reserve(addresses.size());
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::span<const SymbolIndex::Frame> all(lists.frames);
    result.push_back(
        ToSymbol(symbols, all.subspan(lists.first[i], lists.first[i + 1] - lists.first[i]), lists.offsets[i]));
  }
  return result;
}

Symbol Symbolizer::Symbolize(const BuildId& build_id, const BinarySource& source, ElfAddress address) {
  return SymbolizeIn(*Get(build_id, source), address);
}

Symbol Symbolizer::SymbolizeOffset(const BuildId& build_id, const BinarySource& source, FileOffset offset) {
  const std::shared_ptr<const BinarySymbols> symbols = Get(build_id, source);
  const std::optional<ElfAddress> address = symbols->ToElfAddress(offset);
  if (address.has_value()) return SymbolizeIn(*symbols, *address);
  return CountMiss(symbols->problem() == MissReason::kNone ? MissReason::kNoMapping : symbols->problem());
}

Symbol Symbolizer::SymbolizeKernel(VirtualAddress address) {
  Symbol symbol = kernel_.Symbolize(address);
  counters_.Count(symbol.miss);
  return symbol;
}

Symbol Symbolizer::CountMiss(MissReason reason) {
  counters_.Count(reason);
  return Symbol::Miss(reason);
}

Symbolizer::Jit& Symbolizer::JitLocked(const ProcessKey& process) {
  const uint64_t now_ns = MonotonicNowNs();
  const auto [position, added] = jits_.try_emplace(process);
  Jit& jit = position->second;
  jit.used = ++jit_clock_;
  if (added || (jit.map == nullptr && now_ns - jit.opened_ns >= options_.perf_map_retry_ns)) {
    jit.opened_ns = now_ns;
    jit.map = PerfMap::Open(process, options_.perf_map, &jit.why);
    MissReason no_dump = MissReason::kPerfMapAbsent;
    if (jit.dump == nullptr) jit.dump = JitDump::Open(process, options_.jit_dump, &no_dump);
    if (jit.map == nullptr && jit.why == MissReason::kPerfMapAbsent) jit.why = no_dump;
  }
  return jit;
}

void Symbolizer::MeasureJitLocked(Jit* jit) {
  jit_bytes_ -= jit->bytes;
  jit->bytes = sizeof(Jit) + (jit->map != nullptr ? jit->map->memory_bytes() : 0) +
               (jit->dump != nullptr ? jit->dump->memory_bytes() : 0);
  jit_bytes_ += jit->bytes;
}

void Symbolizer::EvictJitsLocked(const ProcessKey& keep) {
  while (jits_.size() > kMaxJitProcesses || (jit_bytes_ > options_.perf_map_cache_bytes && jits_.size() > 1)) {
    auto oldest = jits_.end();
    for (auto it = jits_.begin(); it != jits_.end(); ++it) {
      if (it->first != keep && (oldest == jits_.end() || it->second.used < oldest->second.used)) oldest = it;
    }
    if (oldest == jits_.end()) return;
    jit_bytes_ -= oldest->second.bytes;
    jits_.erase(oldest);
  }
}

Symbol Symbolizer::SymbolizeJit(const ProcessKey& process, VirtualAddress address) {
  const std::lock_guard lock(jit_mutex_);
  Jit& jit = JitLocked(process);
  Symbol symbol = jit.dump != nullptr ? jit.dump->Symbolize(address) : Symbol::Miss(jit.why);
  if (!symbol.found() && jit.map != nullptr) symbol = jit.map->Symbolize(address);
  MeasureJitLocked(&jit);
  EvictJitsLocked(process);
  counters_.Count(symbol.miss);
  return symbol;
}

void Symbolizer::PrepareJit(const ProcessKey& process) {
  const std::lock_guard lock(jit_mutex_);
  MeasureJitLocked(&JitLocked(process));
  EvictJitsLocked(process);
}

Symbolizer::JitSource Symbolizer::DescribeJit(const ProcessKey& process) {
  const std::lock_guard lock(jit_mutex_);
  const Jit& jit = JitLocked(process);
  JitSource source{.jit_dump = jit.dump != nullptr, .perf_map = jit.map != nullptr};
  if (!source.jit_dump && !source.perf_map) source.why = jit.why;
  return source;
}

void Symbolizer::Forget(const ProcessKey& process) {
  const std::lock_guard lock(jit_mutex_);
  const auto found = jits_.find(process);
  if (found == jits_.end()) return;
  jit_bytes_ -= found->second.bytes;
  jits_.erase(found);
}

Symbolizer::Stats Symbolizer::stats() const {
  Stats stats;
  stats.answers = counters_.snapshot();
  stats.index_cache = index_cache_.counters();
  {
    const std::lock_guard lock(deferred_mutex_);
    stats.tables_deferred = deferred_.size();
  }
  {
    const std::lock_guard lock(tables_mutex_);
    stats.tables_built = tables_built_;
    stats.tables_loaded = tables_loaded_;
    stats.tables_evicted = tables_evicted_;
    stats.tables = tables_.size();
    stats.table_bytes = table_bytes_;
  }
  {
    const std::lock_guard lock(names_mutex_);
    stats.names = names_.size();
    stats.name_bytes = name_bytes_;
  }
  const std::lock_guard lock(jit_mutex_);
  for (const auto& [process, jit] : jits_) {
    stats.perf_maps += jit.map != nullptr;
    stats.jit_dumps += jit.dump != nullptr;
  }
  stats.perf_map_bytes = jit_bytes_;
  return stats;
}

}  // namespace pyrometer::symbolize
