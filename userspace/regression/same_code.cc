#include "userspace/regression/same_code.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <unordered_set>
#include <vector>

#include "userspace/base/strings.h"

namespace pyrometer::regression {
namespace {

// Of code and of data of one binary; larger ones are not worth the second they cost.
constexpr uint64_t kMaxBytes = 256u << 20;
constexpr uint64_t kMaxRelocations = 4u << 20;
constexpr size_t kMaxTextBytes = 4096;  // of a constant that a displacement leads to

struct Place {
  uint64_t address = 0;
  uint64_t size = 0;
  std::string name;
};

class Binary {
 public:
  explicit Binary(const elf::ElfFile& file) : file_(file) {}

  Status Read() {
    if (file_.machine() != EM_X86_64) return FailedPreconditionError(file_.name() + " is not for x86-64");
    const elf::Section* table = file_.FindSection(SHT_SYMTAB);
    const elf::Section* names = table == nullptr ? nullptr : file_.LinkedStrings(*table);
    if (names == nullptr) return FailedPreconditionError(file_.name() + " has no symbol table");
    elf::StringTableReader strings(file_, *names);
    Status failed;
    RETURN_IF_ERROR(file_.ForEachSymbol(*table, [&](uint64_t, const std::vector<elf::RawSymbol>& symbols) {
      for (const elf::RawSymbol& symbol : symbols) {
        const bool function = symbol.type == STT_FUNC || symbol.type == STT_GNU_IFUNC;
        if ((!function && symbol.type != STT_OBJECT) || symbol.section == SHN_UNDEF) continue;
        const auto name = strings.At(symbol.name);
        if (!name.ok()) {
          failed = name.status();
          continue;
        }
        Place place{symbol.address.value, symbol.size, std::string(*name)};
        if (symbol.size > 0) (function ? functions_ : objects_).push_back(place);
        places_.push_back(std::move(place));
      }
    }));
    RETURN_IF_ERROR(failed);
    const auto by_address = [](const Place& a, const Place& b) {
      return std::pair(a.address, std::string_view(a.name)) < std::pair(b.address, std::string_view(b.name));
    };
    std::sort(places_.begin(), places_.end(), by_address);
    uint64_t total = 0;
    for (const elf::Section& section : file_.sections()) {
      if ((section.flags & SHF_ALLOC) == 0 || !section.has_bytes() || section.size == 0) continue;
      total += section.size;
      if (total > kMaxBytes) return FailedPreconditionError(file_.name() + " is too large to be compared");
      ASSIGN_OR_RETURN(std::string bytes, file_.ReadSection(section, kMaxBytes));
      memory_.push_back({section.address.value, std::string(section.name), std::move(bytes)});
    }
    return ReadImports();
  }

  // By name; several static functions of one name by size.
  std::map<std::string, std::vector<Place>> Functions() const {
    std::map<std::string, std::vector<Place>> functions;
    for (const Place& place : functions_) functions[place.name].push_back(place);
    for (auto& [name, places] : functions) {
      std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
        return std::tie(a.size, a.address) < std::tie(b.size, b.address);
      });
      // Aliases: one name twice at one place.
      const auto equal = [](const Place& a, const Place& b) { return a.address == b.address; };
      places.erase(std::unique(places.begin(), places.end(), equal), places.end());
    }
    return functions;
  }

  std::string_view Bytes(uint64_t address, uint64_t size) const {
    const Memory* memory = Find(address);
    if (memory == nullptr || address - memory->address > memory->bytes.size() ||
        size > memory->bytes.size() - (address - memory->address)) {
      return {};
    }
    return std::string_view(memory->bytes).substr(address - memory->address, size);
  }

  // What lies at an address, in words that are equal for equal things; "" unknown.
  std::string Meaning(uint64_t address) const {
    const auto next = std::upper_bound(places_.begin(), places_.end(), address,
                                       [](uint64_t value, const Place& place) { return value < place.address; });
    if (next != places_.begin()) {
      // The first name of those at one address.
      const uint64_t start = std::prev(next)->address;
      const auto first = std::lower_bound(places_.begin(), next, start,
                                          [](const Place& place, uint64_t value) { return place.address < value; });
      if (address < start + std::max<uint64_t>(1, first->size)) {
        return StrFormat("%s+%d", first->name, address - start);
      }
    }
    if (const auto import = imports_.find(address); import != imports_.end()) return "import " + import->second;
    const Memory* memory = Find(address);
    if (memory == nullptr) return "";
    if (memory->name.starts_with(".plt")) {
      // endbr64, then a jump through a slot: ff 25 and its distance.
      const std::string_view stub = Bytes(address, 16);
      const size_t jump = stub.substr(0, 8).find("\xFF\x25");
      if (jump == std::string_view::npos || jump + 6 > stub.size()) return "";
      const auto slot =
          imports_.find(address + jump + 6 + static_cast<uint64_t>(int64_t{Distance(stub.substr(jump + 2))}));
      return slot == imports_.end() ? "" : "import " + slot->second;
    }
    if (memory->name.starts_with(".rodata")) {
      const std::string_view rest = Bytes(address, memory->bytes.size() - (address - memory->address));
      const size_t end = rest.substr(0, kMaxTextBytes).find('\0');
      if (end != std::string_view::npos && end > 0) return "text " + std::string(rest.substr(0, end));
      // A floating point number, or the beginning of a vector.
      if (rest.size() >= 8) return "bytes " + std::string(rest.substr(0, 8));
    }
    return "";
  }

  static int32_t Distance(std::string_view bytes) {
    int32_t distance = 0;
    std::memcpy(&distance, bytes.data(), sizeof distance);
    return distance;
  }

  // What each object of a name holds: its bytes, and of the words that the loader writes what it puts there. Several
  // static objects may have one name.
  std::map<std::string, std::multiset<std::string>> Objects() const {
    std::map<std::string, std::multiset<std::string>> objects;
    std::set<std::pair<uint64_t, std::string_view>> aliases;  // one name twice at one place
    for (const Place& object : objects_) {
      const Memory* memory = Find(object.address);
      if (memory == nullptr || !IsData(*memory) || !aliases.emplace(object.address, object.name).second) continue;
      std::string content;
      const std::string_view bytes = Bytes(object.address, object.size);
      for (size_t i = 0; i < bytes.size(); ++i) {
        const uint64_t word = (object.address + i) & ~uint64_t{7};
        if (!relocated_.contains(word)) {
          content += bytes[i];
        } else if (i == 0 || word == object.address + i) {
          const auto import = imports_.find(word);
          content += "[" + (import == imports_.end() ? "" : import->second) + "]";
        }
      }
      objects[object.name].insert(std::move(content));
    }
    return objects;
  }
  // Of objects without a name too: how often the loader puts what.
  std::map<std::string, size_t> Addresses() const {
    std::map<std::string, size_t> counts;
    for (const uint64_t word : relocated_) {
      const Memory* memory = Find(word);
      if (memory == nullptr || !IsData(*memory)) continue;
      const auto import = imports_.find(word);
      ++counts[import == imports_.end() ? "" : import->second];
    }
    return counts;
  }

  // How often each byte but 0 (padding) stands in data that holds no addresses.
  std::array<uint64_t, 256> DataBytes() const {
    std::array<uint64_t, 256> counts{};
    for (const Memory& memory : memory_) {
      if (!IsData(memory)) continue;
      for (size_t i = 0; i < memory.bytes.size(); ++i) {
        if (relocated_.contains((memory.address + i) & ~uint64_t{7})) continue;
        ++counts[static_cast<unsigned char>(memory.bytes[i])];
      }
    }
    counts[0] = 0;
    return counts;
  }

 private:
  struct Memory {
    uint64_t address = 0;
    std::string name;
    std::string bytes;
  };

  // .data.rel.ro holds constants that have addresses among them.
  static bool IsData(const Memory& memory) {
    const auto is = [&memory](std::string_view name) {
      return memory.name == name || memory.name.starts_with(std::string(name) + ".");
    };
    return is(".rodata") || is(".data") || is(".tdata") || is(".lrodata") || is(".ldata");
  }

  const Memory* Find(uint64_t address) const {
    for (const Memory& memory : memory_) {
      if (address >= memory.address && address < memory.address + memory.bytes.size()) return &memory;
    }
    return nullptr;
  }

  // Slots that the loader fills, by what it puts there.
  Status ReadImports() {
    for (const elf::Section& section : file_.sections()) {
      if ((section.type != SHT_RELA && section.type != SHT_REL) || (section.flags & SHF_ALLOC) == 0) continue;
      ASSIGN_OR_RETURN(const auto relocations, file_.ReadRelocations(section, kMaxRelocations));
      std::map<uint32_t, std::string> names;
      if (section.link < file_.sections().size()) {
        const elf::Section& symbols = file_.sections()[section.link];
        const elf::Section* strings = symbols.type == SHT_DYNSYM ? file_.LinkedStrings(symbols) : nullptr;
        if (strings != nullptr) {
          elf::StringTableReader reader(file_, *strings);
          RETURN_IF_ERROR(file_.ForEachSymbol(symbols, [&](uint64_t first, const std::vector<elf::RawSymbol>& list) {
            for (size_t i = 0; i < list.size(); ++i) {
              const auto name = reader.At(list[i].name);
              if (name.ok()) names[static_cast<uint32_t>(first + i)] = std::string(*name);
            }
          }));
        }
      }
      for (const elf::RawRelocation& relocation : relocations) {
        relocated_.insert(relocation.target.value & ~uint64_t{7});
        const auto name = names.find(relocation.symbol);
        if (relocation.symbol != 0 && name != names.end()) {
          imports_[relocation.target.value] = StrFormat("%s+%d", name->second, relocation.addend);
        } else if (relocation.type == R_X86_64_RELATIVE || relocation.type == R_X86_64_IRELATIVE) {
          std::string meaning = Meaning(static_cast<uint64_t>(relocation.addend));
          if (!meaning.empty()) imports_[relocation.target.value] = std::move(meaning);
        }
      }
    }
    return OkStatus();
  }

  const elf::ElfFile& file_;
  std::vector<Place> functions_, objects_, places_;
  std::vector<Memory> memory_;
  std::map<uint64_t, std::string> imports_;
  std::unordered_set<uint64_t> relocated_;  // words that the loader writes
};

// Equal bytes, but for displacements that mean the same.
bool SameFunction(const Binary& one, const Place& a, const Binary& other, const Place& b) {
  if (a.size != b.size) return false;
  const std::string_view x = one.Bytes(a.address, a.size), y = other.Bytes(b.address, b.size);
  if (x.size() != a.size || y.size() != b.size) return false;
  constexpr size_t kWidth = 4;
  for (size_t i = 0; i < x.size();) {
    if (x[i] == y[i]) {
      ++i;
      continue;
    }
    // The field may have begun up to three bytes before; after it an operand of up to four bytes may follow, which the
    // processor counts as part of the instruction.
    bool explained = false;
    for (size_t back = 0; back < kWidth && back <= i && !explained; ++back) {
      const size_t start = i - back;
      if (start + kWidth > x.size()) continue;
      for (const uint64_t after : {0u, 1u, 2u, 4u}) {
        const auto target = [&](std::string_view bytes, uint64_t address) {
          return address + start + kWidth + after +
                 static_cast<uint64_t>(int64_t{Binary::Distance(bytes.substr(start))});
        };
        const std::string meaning = one.Meaning(target(x, a.address));
        if (meaning.empty() || meaning != other.Meaning(target(y, b.address))) continue;
        explained = true;
        i = start + kWidth;
        break;
      }
    }
    if (!explained) return false;
  }
  return true;
}

}  // namespace

StatusOr<CodeComparison> CompareCode(const elf::ElfFile& before, const elf::ElfFile& after) {
  Binary one(before), other(after);
  RETURN_IF_ERROR(one.Read());
  RETURN_IF_ERROR(other.Read());
  CodeComparison result;
  const auto differs = [&result](std::string difference) {
    if (result.difference.empty()) result.difference = std::move(difference);
  };
  const auto functions = one.Functions(), others = other.Functions();
  for (const auto& [name, places] : others) result.functions[name] = false;
  for (const auto& [name, places] : functions) {
    const auto found = others.find(name);
    result.functions[name] = found != others.end() &&
                             std::equal(places.begin(), places.end(), found->second.begin(), found->second.end(),
                                        [&](const Place& a, const Place& b) { return SameFunction(one, a, other, b); });
  }
  for (const auto& [name, same] : result.functions) {
    if (same) continue;
    const bool in_both = functions.contains(name) && others.contains(name);
    differs(StrFormat(in_both ? "%s differs" : "%s is in one of them only", name));
  }
  const auto objects = one.Objects(), other_objects = other.Objects();
  result.objects_same = true;
  for (const auto& [name, contents] : objects) {
    const auto found = other_objects.find(name);
    if (found == other_objects.end() || found->second == contents) continue;
    result.objects_same = false;
    differs(StrFormat("%s differs", name));
  }
  const auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (!std::equal(objects.begin(), objects.end(), other_objects.begin(), other_objects.end(), same_name) ||
      one.DataBytes() != other.DataBytes() || one.Addresses() != other.Addresses()) {
    differs("data differ");
  }
  result.same = result.difference.empty();
  return result;
}

}  // namespace pyrometer::regression
