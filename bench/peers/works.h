// What is done with each system: all rows of one shape in one round.
#pragma once

#include <functional>

#include "results.h"
#include "system.h"

/// How much is done. The numbers of operations are upper bounds.
struct Plan {
    size_t operations;        // of one process alone
    size_t mixed_operations;  // of each process in works that several may do
    size_t slow_operations;   // of systems that need many microseconds for each, 20,000 at most
    size_t bytes_per_row;     // read or written
    // Rows of fast systems are repeated until they have lasted as long, those of one process and those of several.
    double least_ns, least_ns_together;
    bool all_rows;            // else: only load, find, replace, remove and add, iteration, memory
    bool all_mixes;           // else: YCSB A and C and half writes, uniform
    std::vector<unsigned> processes;
};

/// Takes a figure: the cell without system and shape.
using Sink = std::function<void(const Cell &cell, double value, size_t operations)>;

/// Jobs are done in a process each, so that none inherits another's heap.
enum class Job { presized_load, latency_load, all_else, count };
void do_job(Job job, System &system, const Shape &shape, const Plan &plan, const std::vector<uint32_t> &order, const Sink &sink);
